"""Changes of a shard's manifest: decided by a pure function, committed by compare-and-swap.

Everyone who changes a manifest (data node, coordinator) does it through ``commit_manifest``, so that
three invariants hold by construction: the version rises by one, the checkpoint never moves back,
and objects that no manifest names any more become garbage in the same commit (ARCHITECTURE.md,
invariants 2, 3 and 5).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from core.catalog import Garbage
from core.clock import wall_ms
from core.errors import Conflict, Fenced
from core.ids import Revision, ShardId
from core.manifest import Manifest
from storage import keys
from storage.meta.port import Condition, Delete, MetaStore, Put

ATTEMPTS_MAX = 100
"""Each lost race means that somebody else's commit won, so this many in a row is a bug."""
_NAMES_PER_ENTRY = 5_000
"""Object names are below 200 bytes and a value of the metadata store below 1 MB."""

Change = Callable[[Manifest], Manifest | None]
"""From the present manifest to the next (``Manifest.bump``), or None = nothing to change."""
Decision = tuple[Manifest, Sequence[Put | Delete]]
"""What is decided of a manifest: the one it is about, and the writes."""


@dataclass(frozen=True, slots=True)
class Authority:
    """What makes a node entitled to commit: this key still has this revision (its epoch).

    For a data node the channel's owner key, for the coordinator the leader key.
    """

    key: str
    epoch: Revision

    @property
    def condition(self) -> Condition:
        return Condition(self.key, self.epoch)

    async def check(self, meta: MetaStore) -> None:
        """Raises ``Fenced`` when the entitlement is gone."""
        item = await meta.get(self.key)
        if item is None or item.revision != self.epoch:
            raise Fenced(f"{self.key} is no longer held at revision {self.epoch}")


async def read_manifest(meta: MetaStore, shard: ShardId) -> tuple[Manifest, Revision] | None:
    """The manifest as the store has it now; None = the shard was dropped."""
    item = await meta.get(keys.manifest(shard))
    return None if item is None else (keys.decode(Manifest, item.value), item.revision)


async def commit_manifest(
    meta: MetaStore, shard: ShardId, change: Change, authority: Authority, grace_s: float
) -> Manifest | None:
    """Reads, decides and commits until no race is lost; the new manifest.

    None: the shard was dropped, or ``change`` decided that there is nothing to do. Objects are kept
    for ``grace_s`` after they left the manifest. Raises ``Fenced``, and what the store raises
    (``Unavailable``: may have happened).
    """

    def decide(old: Manifest) -> Decision | None:
        new = change(old)
        if new is None:
            return None
        assert new.version == old.version + 1, "versions rise by one"
        assert new.checkpoint >= old.checkpoint, "checkpoints never move back"
        dropped = {o.name for o in old.objects()} - {o.name for o in new.objects()}
        return new, [Put(keys.manifest(shard), keys.encode(new)), *_garbage(new, dropped, grace_s)]

    return await _commit(meta, shard, decide, authority)


async def drop_manifest(meta: MetaStore, shard: ShardId, authority: Authority, grace_s: float) -> bool:
    """Removes a shard's manifest; all its objects become garbage. False = it was gone already."""

    def decide(old: Manifest) -> Decision:
        names = (o.name for o in old.objects())
        return old, [Delete(keys.manifest(shard)), *_garbage(old.bump(), names, grace_s)]

    return await _commit(meta, shard, decide, authority) is not None


async def _commit(
    meta: MetaStore, shard: ShardId, decide: Callable[[Manifest], Decision | None], authority: Authority
) -> Manifest | None:
    """Commits what is decided of the present manifest, again after a lost race; the manifest decided on."""
    key = keys.manifest(shard)
    for _ in range(ATTEMPTS_MAX):
        present = await read_manifest(meta, shard)
        decision = decide(present[0]) if present else None
        if present is None or decision is None:
            return None
        manifest, writes = decision
        try:
            await meta.commit([Condition(key, present[1]), authority.condition], writes)
        except Conflict:
            await authority.check(meta)
            continue
        return manifest
    raise Conflict(f"{key}: lost {ATTEMPTS_MAX} races for a commit")


def _garbage(manifest: Manifest, names: Iterable[str], grace_s: float) -> Sequence[Put]:
    """The writes that note as garbage what this version of a manifest no longer names."""
    ordered = sorted(names)
    not_before_ms = wall_ms() + int(grace_s * 1000)
    pages = [ordered[i : i + _NAMES_PER_ENTRY] for i in range(0, len(ordered), _NAMES_PER_ENTRY)]
    return [
        Put(
            keys.garbage_of(manifest.shard_id, manifest.version, n),
            keys.encode(Garbage(tuple(page), not_before_ms)),
        )
        for n, page in enumerate(pages)
    ]
