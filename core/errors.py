"""The error tree. The class decides the Milvus code, the legacy code and whether a retry helps.

Raise these anywhere; only the proxy's edge (``proxy/status.py``) turns one into a Status.
Codes are those of Milvus's own list; ``legacy`` is the ``error_code`` older SDKs read.
"""


class SheafError(Exception):
    """Base of every error SheafDB raises on purpose. The message is meant for the caller."""

    code = 65535
    legacy = 1
    retriable = False
    caller_mistake = False
    """The caller sent something wrong; the same request can never succeed."""


# --- the caller's mistakes -------------------------------------------------------------------
class InvalidArgument(SheafError):
    code, legacy, caller_mistake = 1100, 5, True


class MissingArgument(InvalidArgument):
    code = 1101


class TooLarge(InvalidArgument):
    code = 1102


class CollectionNotFound(SheafError):
    code, legacy, caller_mistake = 100, 4, True

    def __init__(self, name: object, database: str = "default") -> None:
        super().__init__(f"collection not found[database={database}][collection={name}]")


class CollectionNotLoaded(SheafError):
    code, legacy, caller_mistake = 101, 1, True

    def __init__(self, name: object) -> None:
        super().__init__(f"collection not loaded[collection={name}]")


class CollectionNotReady(SheafError):
    """Loading or recovering; a retry helps."""

    code, legacy, retriable = 103, 1, True


class SchemaMismatch(SheafError):
    """The client's cached schema is older than the collection's: it describes again and retries."""

    code, legacy = 109, 62


class PartitionNotFound(SheafError):
    code, legacy, caller_mistake = 200, 15, True

    def __init__(self, name: object) -> None:
        super().__init__(f"partition not found[partition={name}]")


class PartitionNotLoaded(SheafError):
    code, legacy, caller_mistake = 201, 1, True


class IndexNotFound(SheafError):
    code, legacy, caller_mistake = 700, 25, True


class IndexNotSupported(SheafError):
    code, legacy, caller_mistake = 701, 1, True


class IndexDuplicate(SheafError):
    code, legacy, caller_mistake = 702, 1, True


class DatabaseNotFound(SheafError):
    code, legacy, caller_mistake = 800, 1, True

    def __init__(self, name: object) -> None:
        super().__init__(f"database not found[database={name}]")


class AliasNotFound(SheafError):
    code, legacy, caller_mistake = 1600, 1, True


class FieldNotFound(SheafError):
    code, legacy, caller_mistake = 1700, 1, True


class FilterError(InvalidArgument):
    """A filter that does not parse or does not fit the schema."""


class Refused(SheafError):
    """A well-formed request that the present state forbids (dropping a loaded partition, ...)."""

    code, legacy, caller_mistake = 65535, 1, True


class NotYet(SheafError):
    """Part of the protocol that this version does not serve yet; the message names it."""

    code, legacy = 10, 1


# --- the server's state ----------------------------------------------------------------------
class NotReady(SheafError):
    code, legacy, retriable = 1, 1, True


class Unavailable(SheafError):
    """A node or server that should answer does not."""

    code, legacy, retriable = 2, 1, True


class RateLimited(SheafError):
    code, legacy, retriable = 8, 49, True


class DiskFull(SheafError):
    """Storage has no room: writes are refused, reads go on; space back means service back."""

    code, legacy = 9, 48


class MemoryFull(SheafError):
    """What is to be loaded does not fit; the message says how much it takes, how much there is, and which
    setting limits it."""

    code, legacy = 3, 52


class Timeout(SheafError):
    """A bounded wait ended; the message says what it waited for."""

    code, legacy, retriable = 5, 1, True


class SnapshotExpired(SheafError):
    """The view an iterator reads from is no longer held; start the iterator again."""

    code, legacy = 65535, 1


class Corrupted(SheafError):
    """Stored bytes are not what was written. Names the file; never answered around."""

    code, legacy = 5, 1

    def __init__(self, what: object, why: str) -> None:
        super().__init__(f"corrupted: {what}: {why}")


class LoadFailed(SheafError):
    """A shard can't be loaded from what is stored; the message names the file."""

    code, legacy = 5, 1


class StartRefused(SheafError):
    """The process must not start on this data (held by another, other cluster, newer format)."""


# --- between parts of the system, never shown to a client as they are ------------------------
class Conflict(SheafError):
    """A commit's condition no longer holds: read again, decide again."""

    retriable = True


class LogTruncated(SheafError):
    """The log no longer holds the position asked for: start again from the manifest."""

    def __init__(self, channel: int, asked: int, start: int) -> None:
        super().__init__(f"log channel {channel} starts at {start}, asked for {asked}")
        self.channel, self.asked, self.start = channel, asked, start


class WatchCompacted(SheafError):
    """The metadata store no longer holds the revision a watch asked for: list again."""


class ObjectNotFound(SheafError):
    def __init__(self, name: str) -> None:
        super().__init__(f"object not found: {name}")
        self.name = name


class Fenced(SheafError):
    """This node no longer owns what it tried to change."""


class NotHeld(Unavailable):
    """A worker does not hold what its leader asks for: it was restarted, or the leader was silent too
    long. The leader has it held anew."""
