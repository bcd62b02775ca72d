"""Back-pressure: how full a node is, and what that means for those who write to it. Pure functions.

A node that takes records from the log has a budget for those it has taken and not yet got rid of. From half of
it on writes wait, the longer the fuller it is; at the whole of it they are refused. How full is told in
``LEVELS`` steps, so that a change is news to others and not every byte.
"""

from dataclasses import asdict, dataclass

import orjson

from core.errors import Corrupted
from core.ids import Channel

LEVELS = 8
"""The last one refuses; 0 = all is well."""
DELAY_MAX_S = 1.0
"""What the wait of a write comes near to before writes are refused."""
SLACK = 1 / 16
"""Share of the budget that must be free again before a level falls: it does not flicker."""


@dataclass(frozen=True, slots=True)
class Pressure:
    """What a node tells. channels: of the log, those whose records fill it. reason: what is full, by how
    much, and which setting limits it."""

    level: int
    channels: tuple[Channel, ...]
    reason: str

    @property
    def refuses(self) -> bool:
        return self.level >= LEVELS

    @property
    def delay_s(self) -> float:
        """How long a write waits, if it is not refused."""
        return DELAY_MAX_S * (self.level / LEVELS) ** 2

    def text(self) -> str:
        """As it is stored."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> "Pressure":
        """Raises ``Corrupted``."""
        try:
            found = orjson.loads(text)
            return cls(int(found["level"]), tuple(map(Channel, found["channels"])), str(found["reason"]))
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError) as e:
            raise Corrupted("a node's pressure", f"{text[:80]!r}: {e}") from e


def level(used: float, budget: float, present: int) -> int:
    """The level at ``used`` of ``budget`` (> 0), when it was ``present`` before: rises at once, falls late."""
    return max(_raw(used, budget), min(present, _raw(used + SLACK * budget, budget)))


def _raw(used: float, budget: float) -> int:
    half = budget / 2
    return 0 if used <= half else min(LEVELS, 1 + int((LEVELS - 1) * (used - half) / half))
