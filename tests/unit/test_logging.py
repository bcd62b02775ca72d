"""What reaches the log, and as what."""

import logging

import pytest
from grpc import aio
from structlog.testing import capture_logs

from sheafdb.logging import Forward


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ValueError("planted"), "error"),
        # The base of what gRPC's server logs when a client left while its answer was on the way.
        (aio.InternalError("planted"), "debug"),
    ],
)
def test_only_what_a_person_must_act_on_is_an_error(error: Exception, level: str) -> None:
    logger = logging.Logger("planted")  # none that others have handlers on
    logger.addHandler(Forward())
    with capture_logs() as lines:
        try:
            raise error
        except Exception:
            logger.exception("failed")
    (line,) = lines
    assert (line["log_level"], line["event"], line["logger"]) == (level, "failed", "planted")
