"""Back-pressure between processes: a node that fills up says so under a leased key, which is not there while all
is well. Written only when the level changes."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import structlog
from prometheus_client import Gauge

from core.background import Background
from core.errors import Corrupted, Fenced, SheafError
from core.ids import Channel, NodeId
from core.pressure import LEVELS, Pressure, level
from storage import keys
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore, Put

TICK_S = 0.5
"""Pause between measurements: what may come in between must fit into the half of the budget in which writes
only wait."""
TTL_S = 5.0
"""How long a word outlives its node; another one has taken over what filled it by then, and speaks for itself."""

LEVEL = Gauge("sheafdb_pressure_level", f"How full a node is: 0 = all is well, {LEVELS} = writes are refused", ["role"])

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Load:
    """used: bytes; budget: those allowed. channels: whose records they are. what: "growing rows", say.
    setting: name of the setting that limits it."""

    used: int
    budget: int
    channels: tuple[Channel, ...]
    what: str
    setting: str


class PressureSign:
    """Tells the others how full this node is, for as long as it lives.

    measure: asked every ``TICK_S``; when it fails the last word stands.
    """

    def __init__(self, meta: MetaStore, role: str, node: NodeId, measure: Callable[[], Awaitable[Load]]) -> None:
        self._meta, self._measure = meta, measure
        self._key, self._who = keys.pressure(role, node), f"{role} {node}"
        self._level, self._channels = 0, ()
        self._lease = 0
        self._gauge = LEVEL.labels(role)
        self._failed = ""
        self._ticking = Background(f"pressure of {role}", self._tick, TICK_S)

    def start(self) -> None:
        self._ticking.start()

    async def close(self) -> None:
        """Takes the word back."""
        await self._ticking.close()
        with suppress(SheafError):  # unreachable, the store ends the lease by itself
            await self._say(None)

    async def _tick(self) -> None:
        try:
            if self._lease:
                await self._meta.keep_alive(self._lease)
            load = await self._measure()
            now = level(load.used, load.budget, self._level)
            channels: tuple[Channel, ...] = load.channels if now else ()
            if (now, channels) != (self._level, self._channels):
                await self._say(Pressure(now, channels, self._reason(load)) if now else None)
                if now != self._level:
                    say = log.warning if LEVELS in (now, self._level) else log.info
                    say("pressure changed", now=now, before=self._level, reason=self._reason(load))
                self._level, self._channels = now, channels
                self._gauge.set(now)
            self._failed = ""
        except Fenced:
            self._lease = self._level = 0  # it slept too long: says it anew
            self._channels = ()
        except SheafError as e:
            if str(e) != self._failed:  # once, not at every attempt
                log.warning("pressure not told, trying again", error=str(e))
            self._failed = str(e)

    async def _say(self, pressure: Pressure | None) -> None:
        if pressure is None:
            if self._lease:
                await self._meta.revoke(self._lease)
                self._lease = 0
            return
        if not self._lease:
            self._lease = await self._meta.grant(TTL_S)
        await self._meta.commit((), [Put(self._key, pressure.text().encode(), self._lease)])

    def _reason(self, load: Load) -> str:
        return f"{load.what} of {self._who} take {load.used} bytes of {load.budget} ({load.setting})"


class PressureSigns:
    """What all nodes tell. ``by_channel``: the highest of each channel under pressure; the same dictionary for
    ever, empty while all is well."""

    def __init__(self, meta: MetaStore) -> None:
        self._mirror: Mirror[str] = Mirror(meta, keys.PRESSURES, str)
        self.by_channel: dict[Channel, Pressure] = {}

    async def start(self) -> None:
        await self._mirror.start()
        self._mirror.listen(self._changed)

    async def close(self) -> None:
        await self._mirror.close()

    def _changed(self, _key: str, _text: Any) -> None:
        self.by_channel.clear()
        for key, text in sorted(self._mirror.values.items()):
            try:
                said = Pressure.parse(text)
            except Corrupted as e:
                log.warning("pressure left out", key=key, error=str(e))
                continue
            for channel in said.channels:
                if channel not in self.by_channel or self.by_channel[channel].level < said.level:
                    self.by_channel[channel] = said
