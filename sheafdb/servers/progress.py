"""Shows people that a long installation is alive: a spinner on a terminal, else lines."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def shown() -> Iterator[Callable[[str], None]]:
    """Gives what ``install`` says its lines to. On stderr: stdout belongs to ready lines."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console  # noqa: PLC0415  # a development dependency, for terminals only
        except ImportError:
            pass
        else:
            console = Console(stderr=True)
            with console.status("servers") as status:

                def say(line: str) -> None:
                    console.print(line, highlight=False, markup=False)
                    status.update(line)

                yield say
            return
    yield lambda line: print(line, file=sys.stderr, flush=True)
