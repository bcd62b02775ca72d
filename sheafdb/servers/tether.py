"""Becomes a command that cannot outlive the process that started it, even one that was SIGKILLed.

``python -I -S tether.py PARENT_PID COMMAND...``. The kernel's request is kept across exec, so the
command has the pid that the parent knows, and nothing stands between them. (Setting it between fork
and exec, as ``preexec_fn`` does, can deadlock a process that has threads.)

The kernel watches the *thread* that started the child: start servers from the main thread.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        # It died before the request was made.
        sys.exit(1)
    try:
        os.execvp(command[0], command)  # noqa: S606  # what this file is for
    except OSError as e:
        sys.exit(f"{command[0]}: {e.strerror}")


if __name__ == "__main__":
    main()
