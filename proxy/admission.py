"""Whether a write may come in now: it waits while what takes its records fills up, and is refused once that is full."""

import asyncio

from prometheus_client import Counter

from core.catalog import Collection
from core.errors import RateLimited
from core.ids import Channel
from core.pressure import Pressure
from proxy.call import Call

SLOWED = Counter("sheafdb_writes_slowed", "Writes that waited for data nodes or query nodes that fill up")
SLOWED_S = Counter("sheafdb_writes_slowed_seconds", "How long they waited")
REFUSED = Counter("sheafdb_writes_refused", "Writes refused because data nodes or query nodes are full")


async def admit(collection: Collection, by_channel: dict[Channel, Pressure], call: Call) -> None:
    """Returns when the write may go on. Raises ``RateLimited``: a client repeats it later.

    All channels of the collection count, not only those its rows are about to go to: that is known late.
    """
    pressed = [(by_channel[s.channel].level, s.channel) for s in collection.shards if s.channel in by_channel]
    if not pressed:
        return
    _, channel = max(pressed)
    pressure = by_channel[channel]
    if pressure.refuses:
        REFUSED.inc()
        raise RateLimited(
            f"rate limit exceeded[collection={collection.name}][channel={channel}]: {pressure.reason};"
            " writes are refused until there is room again, reads go on"
        )
    wait_s = call.remaining_s(pressure.delay_s)
    SLOWED.inc()
    SLOWED_S.inc(wait_s)
    await asyncio.sleep(wait_s)
