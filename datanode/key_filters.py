"""Which kills an older segment may need: bounds and bloom filters of its keys, kept in memory."""

import asyncio
import json
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import structlog

from core.errors import Corrupted
from core.hashing import hash_keys
from core.ids import FieldId, SegmentId
from core.manifest import Segment
from datanode.rows import Kills
from storage.bloom import Bloom
from storage.objects.port import ObjectStore
from storage.segment_file import SegmentFile

BYTES_MAX = 64 << 20

log = structlog.get_logger()


class KeyFilters:
    """Bloom filters of segments, the least recently used forgotten."""

    def __init__(self, objects: ObjectStore, threads: Executor, bytes_max: int = BYTES_MAX) -> None:
        self._objects, self._threads, self._bytes_max = objects, threads, bytes_max
        self._blooms: OrderedDict[SegmentId, Bloom] = OrderedDict()
        self._bytes = 0

    async def reach(self, segment: Segment, primary: FieldId, kills: Kills) -> np.ndarray:
        """bool [n]: False = the segment surely has no row that the kill ends."""
        mask = kills.positions > segment.min_position
        if mask.any():
            mask &= _within_bounds(segment, primary, kills.keys)
        if mask.any():
            try:
                bloom = await self._bloom(segment)
            except Corrupted as e:
                # Readers will say so; a kill too many does no harm.
                log.warning("key filter not readable, every kill is kept", segment=segment.object.name, error=str(e))
                return mask
            candidates = np.flatnonzero(mask)
            mask[candidates] = bloom.may_contain(hash_keys(kills.keys.take(pa.array(candidates))))
        return mask

    async def needed(self, segments: Sequence[Segment], primary: FieldId, kills: Kills) -> np.ndarray:
        """bool [n]: kills that some of the segments may need."""
        needed = np.zeros(len(kills.keys), np.bool_)
        for segment in segments:
            # Only what no other segment needs yet is asked.
            open_ = np.flatnonzero(~needed)
            if not len(open_):
                break
            rest = Kills(kills.keys.take(pa.array(open_)), kills.positions[open_])
            needed[open_] = await self.reach(segment, primary, rest)
        return needed

    async def _bloom(self, segment: Segment) -> Bloom:
        bloom = self._blooms.get(segment.id)
        if bloom is None:
            path = await self._objects.fetch(segment.object.name)
            loop = asyncio.get_running_loop()
            bloom = await loop.run_in_executor(self._threads, _read, path, segment)
            self._blooms[segment.id] = bloom
            self._bytes += bloom.bits.nbytes
            while self._bytes > self._bytes_max and len(self._blooms) > 1:
                _, old = self._blooms.popitem(last=False)
                self._bytes -= old.bits.nbytes
        self._blooms.move_to_end(segment.id)
        return bloom


def _read(path: Path, segment: Segment) -> Bloom:
    # Verified whole: one flipped bit of a filter would let a dead row live.
    file = SegmentFile(path, segment.object)
    try:
        return file.bloom()
    finally:
        file.close()


def _within_bounds(segment: Segment, primary: FieldId, keys: pa.Array) -> np.ndarray:
    stats = next((s for s in segment.stats if s.field_id == primary), None)
    inside = np.ones(len(keys), np.bool_)
    if stats is None:
        return inside
    for bound, function in ((stats.min, "greater_equal"), (stats.max, "less_equal")):
        if bound:
            scalar = pa.scalar(json.loads(bound), keys.type)
            inside &= pc.call_function(function, [keys, scalar]).to_numpy(zero_copy_only=False)
    return inside
