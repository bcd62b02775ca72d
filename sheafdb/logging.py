"""Structured log lines on stderr: JSON for machines, text for a terminal.

ERROR means a person must act. What libraries send to the standard ``logging`` arrives here too.
A request's id is bound by the proxy through ``structlog.contextvars`` and is in all of its lines.
"""

import logging
import sys
from typing import Any

import orjson
import structlog
from grpc import aio

from core.settings import LogOutputSettings


def configure(settings: LogOutputSettings) -> None:
    """Sets level and form for the whole process. To be called once, before any role is made."""
    level = getattr(logging, settings.level.upper())
    as_text = settings.format == "text" or (settings.format == "auto" and sys.stderr.isatty())
    stamp = structlog.processors.TimeStamper("%H:%M:%S.%f" if as_text else "iso", utc=not as_text)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            stamp,
            *(_text() if as_text else _json()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.WriteLoggerFactory(sys.stderr)
        if as_text
        else structlog.BytesLoggerFactory(sys.stderr.buffer),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(handlers=[Forward()], level=max(level, logging.WARNING), force=True)
    logging.captureWarnings(True)


def _json() -> list[Any]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(lambda entry, default: orjson.dumps(entry, default=default)),
    ]


def _text() -> list[Any]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
        )
    ]


class Forward(logging.Handler):
    """Hands records of the standard library's loggers to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            _level(record), record.getMessage(), logger=record.name, exc_info=record.exc_info or None
        )


def _level(record: logging.LogRecord) -> int:
    """gRPC's server reports a client that left while its answer was on the way as an error of its own, if it hears
    of the answer first; and as nothing to speak of, if it hears of the client first."""
    left = record.exc_info is not None and isinstance(record.exc_info[1], aio.InternalError)
    return logging.DEBUG if left else record.levelno
