"""A bar on the terminal of whoever waits; nowhere else."""

import sys

WIDTH = 30


class Bar:
    """Called with what is done, how much of it and of how much; one line per ``what``."""

    def __init__(self) -> None:
        self._what = ""

    def __call__(self, what: str, done: int, of: int) -> None:
        if not sys.stderr.isatty():
            return
        before = "\n" if self._what not in ("", what) else "\r"
        filled = WIDTH * done // of if of else WIDTH
        # When all is done the line is left, unless more is said of the same.
        self._what = "" if done >= of else what
        end = "\n" if done >= of else ""
        print(f"{before}[{'#' * filled:.<{WIDTH}}] {done:,} of {of:,} {what}", end=end, file=sys.stderr, flush=True)
