"""etcd's errors as ours. The texts are those of etcd's ``rpctypes`` (3.4 to 3.6)."""

from grpc import StatusCode
from grpc.aio import AioRpcError

from core.errors import Corrupted, DiskFull, Fenced, SheafError, TooLarge, Unavailable, WatchCompacted


class LinkLost(Unavailable):
    """The connection is gone, or its member can't serve: go to another one."""


class TokenRefused(Unavailable):
    """The member does not accept the authentication token any more. Nothing was done."""


class AccessRefused(Unavailable):
    """No user, a wrong password, a certificate or a permission that does not do: a person must act."""


_BY_TEXT: dict[str, type[SheafError]] = {
    "invalid auth token": TokenRefused,
    "revision of auth store is old": TokenRefused,
    "user name is empty": AccessRefused,
    "authentication failed": AccessRefused,
    "permission denied": AccessRefused,
    "CERTIFICATE_VERIFY_FAILED": AccessRefused,
    "requested lease not found": Fenced,
    "required revision has been compacted": WatchCompacted,
    "database space exceeded": DiskFull,
    "request is too large": TooLarge,
    "too many operations in txn request": TooLarge,
    "no leader": LinkLost,
}


def translated(e: AioRpcError, endpoint: str) -> SheafError:
    """What to raise for an error of a call to a member. Anything unknown: may or may not have happened."""
    code, text = e.code(), e.details() or ""
    if code is StatusCode.DATA_LOSS:
        return Corrupted(f"etcd {endpoint}", text)
    message = f"etcd {endpoint}: {text or code.name}"
    error = error_of(text, message)
    if error is not None:
        return error
    if code is StatusCode.UNAVAILABLE and not text.startswith("etcdserver:"):
        return LinkLost(message)
    return Unavailable(message)


def error_of(text: str, message: str) -> SheafError | None:
    """The error that a text of etcd stands for; None = an unknown one."""
    return next((cls(message) for part, cls in _BY_TEXT.items() if part in text), None)
