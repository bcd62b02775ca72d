"""What S3 and its client library say, as errors of ``core.errors``."""

from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError

from core.errors import DiskFull, InvalidArgument, ObjectNotFound, SheafError, Unavailable
from storage.objects import folder

ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
NO_ROOM = frozenset({"XMinioStorageFull", "QuotaExceeded", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"})
UNFIT = frozenset({"KeyTooLongError", "XMinioInvalidObjectName", "XMinioParentIsObject", "EntityTooLarge"})
PASSING = frozenset({"SlowDown", "RequestTimeout", "OperationAborted", "XMinioServerNotInitialized"})
PASSING_STATUS = frozenset({408, 429})
INSUFFICIENT_STORAGE = 507
HOPELESS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.ParamValidationError,
    boto.InvalidRegionError,
    boto.UnknownCredentialError,
)
FAILURES = (boto.BotoCoreError, boto.ClientError, ResponseParserError, HTTPError, OSError)
"""All that a request raises; anything else is a mistake in this program."""


class Denied(Unavailable):
    """The server, or the client library, understood and said no: asking again does not help before
    somebody changes something."""


def code_of(error: boto.ClientError) -> str:
    """The S3 error code, such as ``NoSuchKey``; the HTTP status as text where there is none."""
    return str(error.response.get("Error", {}).get("Code", ""))


def typed(error: Exception, where: str, operation: str, name: str) -> SheafError:
    """The error to raise. ``Unavailable`` that is no ``Denied`` may pass: try again."""
    said = f"{where}: {operation} {name}: {_words(error)}"
    if isinstance(error, boto.ClientError):
        return _answered(error, said, name)
    if isinstance(error, (*HOPELESS, ResponseParserError)):
        return Denied(said)
    # The library's time-outs are OSErrors too; any other is one of a local file.
    if isinstance(error, OSError) and not isinstance(error, boto.BotoCoreError):
        return DiskFull(said) if error.errno in folder.NO_ROOM else Denied(said)
    return Unavailable(said)


def _answered(error: boto.ClientError, said: str, name: str) -> SheafError:
    code = code_of(error)
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ABSENT:
        return ObjectNotFound(name)
    if code in NO_ROOM or status == INSUFFICIENT_STORAGE:
        return DiskFull(said)
    if code in UNFIT:
        return InvalidArgument(said)
    if code in PASSING or status in PASSING_STATUS or status >= 500:
        return Unavailable(said)
    return Denied(said)


def _words(error: Exception) -> str:
    if isinstance(error, boto.ClientError):
        message = error.response.get("Error", {}).get("Message", "")
        return f"{code_of(error)}: {message}" if message else code_of(error)
    if isinstance(error, ResponseParserError):
        return "what answers does not speak S3"
    return " ".join(str(error).split())
