"""Named places where a test may stop, fail or kill the process.

Set ``SHEAFDB_FAILPOINTS="seal.before_commit=kill@2;write.appended=fail"``: the action happens at
the n-th passage (default the first). Actions: ``kill`` (SIGKILL to this process), ``fail``
(raises ``InjectedFailure``), ``stop`` (SIGSTOP). With nothing set a passage costs one truth test.
"""

import os
import signal

NAMES = (
    "write.before_append",  # proxy: validated, nothing in the log
    "write.appended",  # proxy: durable in the log, not acknowledged
    "log.before_commit",  # embedded log: nothing durable yet (many records: written, transaction open)
    "log.committed",  # embedded log: durable, nobody told
    "seal.before_put",  # data node: segment file built, not in the object store
    "seal.before_commit",  # data node: objects durable, manifest not changed
    "seal.committed",  # data node: manifest changed, buffer not dropped
    "index.before_put",  # index node: built, not stored
    "index.before_commit",  # coordinator: index object durable, manifest not changed
    "index.committed",  # coordinator: manifest changed
    "compact.before_put",  # data node: merged, not stored
    "compact.before_commit",  # data node: objects durable, manifest not changed
    "compact.committed",  # data node: manifest changed, old objects are garbage
    "gc.before_delete",  # coordinator: chosen, nothing deleted
    "gc.deleted",  # coordinator: objects gone, garbage entry still there
    "trim.before",  # data node: channel checkpoint durable, log not trimmed
    "trim.done",  # data node: log trimmed
    "ddl.before_commit",  # coordinator: catalog change decided, not committed
    "ddl.committed",  # coordinator: catalog change durable, not answered
    "adopt.claimed",  # adoption: the target says what it will be, nothing is copied
    "adopt.object",  # adoption: one more object is in the target
    "adopt.log",  # adoption: one more piece of a channel is in the target
    "adopt.metadata",  # adoption: one more commit of metadata is in the target
    "adopt.completed",  # adoption: the target can be used, nobody told
)


class InjectedFailure(OSError):
    """What the ``fail`` action raises: looks like an I/O error, as the real thing would."""


_armed: dict[str, tuple[str, int]] = {}


def arm(spec: str) -> None:
    """Replaces what is armed. ``spec`` as in the module's docstring; "" disarms all."""
    _armed.clear()
    for part in filter(None, (p.strip() for p in spec.split(";"))):
        name, _, action = part.partition("=")
        verb, _, count = action.partition("@")
        if name not in NAMES or verb not in ("kill", "fail", "stop"):
            raise ValueError(f"unknown failpoint or action: {part!r}")
        _armed[name] = (verb, int(count or 1))


def failpoint(name: str) -> None:
    """Marks a place. Does nothing unless a test armed it."""
    if not _armed:
        return
    verb, left = _armed.get(name, ("", 0))
    if not verb:
        return
    _armed[name] = (verb, left - 1)
    if left != 1:
        return
    if verb == "fail":
        raise InjectedFailure(f"injected failure at {name}")
    os.kill(os.getpid(), signal.SIGKILL if verb == "kill" else signal.SIGSTOP)


arm(os.environ.get("SHEAFDB_FAILPOINTS", ""))
