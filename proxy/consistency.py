"""How fresh a read must be, from what the client sent and what its collection is set to."""

from core.catalog import Consistency
from core.errors import InvalidArgument

EVENTUALLY_TS = 1
BOUNDED_TS = 2
"""These two time stamps are not moments but levels, in every SDK."""

LEVELS: dict[int, Consistency] = {level.value: level for level in Consistency}


def of_request(use_default: bool, level: int, guarantee_ts: int, default: Consistency) -> Consistency:
    """The level to read at, decided as Milvus's proxy does.

    guarantee_ts: 0 = Strong, 1 = Eventually, 2 = Bounded, else the time stamp of the client's last
    write, which it must see. Raises ``InvalidArgument`` for an unknown level.
    """
    asked = LEVELS.get(level)
    if asked is None:
        raise InvalidArgument(f"consistency level {level} is not valid")
    chosen = default if use_default else asked
    if not use_default and chosen is Consistency.STRONG:
        # Older SDKs leave the level 0 and say it by the time stamp alone.
        return _of_timestamp(guarantee_ts)
    if chosen in (Consistency.SESSION, Consistency.CUSTOMIZED):
        return _of_timestamp(guarantee_ts)
    return chosen


def _of_timestamp(guarantee_ts: int) -> Consistency:
    if guarantee_ts == EVENTUALLY_TS:
        return Consistency.EVENTUALLY
    if guarantee_ts == BOUNDED_TS:
        return Consistency.BOUNDED
    return Consistency.SESSION if guarantee_ts else Consistency.STRONG
