"""The identity of a store: one cluster id, kept in the metadata store, the log and the object store.

A part that was lost, emptied or swapped would otherwise look like an empty store. The metadata store
decides, as it has transactions:

1. ``CLUSTER_CREATING`` is put, if nothing is anywhere: from here on the id is chosen.
2. The other places get it.
3. ``CLUSTER`` is put and ``CLUSTER_CREATING`` deleted in one commit: from here on every place has it.

Any process may do any step, and several may do one at once: all write the same id. What a crash left
half done, the next start completes. Nobody uses the store before step 3.

A store that is filled from another one has ``ADOPTING`` in the place of ``CLUSTER_CREATING``, and the one who
fills it does all three steps: a start refuses what is not filled yet. It gets an id of its own: two copies
of a store give the same ids to different things, and must not be taken for one.
"""

import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace

import orjson
from google.protobuf.message import DecodeError

from core.catalog import Adoption, Cluster
from core.errors import Conflict, Fenced, StartRefused, Unavailable
from core.ids import Channel, Revision
from storage import keys
from storage.log.port import Log
from storage.meta.port import Condition, Delete, MetaStore, Put

FORMAT = 1
"""Of the store as a whole. A newer one is refused."""
PROPERTY = "cluster"
"""The name under which a place keeps the identity."""
ROUNDS = 20
"""Each but two is another process's progress."""


@dataclass(frozen=True)
class Place:
    """Where the identity is kept besides the metadata store.

    name: for messages. used: what it holds besides an identity, "" = nothing: only an empty place is
    taken for a new store."""

    name: str
    read: Callable[[], Awaitable[bytes | None]]
    write: Callable[[bytes], Awaitable[None]]
    used: Callable[[], Awaitable[str]]


async def establish(meta: MetaStore, name: str, places: Sequence[Place], advice: str) -> Cluster:
    """The store's identity, which every place has; a new store is given one.

    name: of the metadata store. advice: what an operator can do about a refusal.
    Raises ``StartRefused`` when the places do not belong together, or were written by a newer version."""
    identity = _Identity(meta, name, places, advice)
    for _ in range(ROUNDS):
        if cluster := await identity.step():
            return cluster
    raise Unavailable(f"{name}: the cluster's identity keeps changing")


@dataclass(frozen=True)
class Claim:
    """The right to fill a store, until another process claims it. cluster: the identity it will have."""

    cluster: Cluster
    meta: MetaStore
    epoch: Revision

    async def commit(self, writes: Sequence[Put | Delete]) -> None:
        """Raises ``Fenced`` when another process has claimed the store, and what the store raises."""
        try:
            await self.meta.commit([Condition(keys.ADOPTING, self.epoch)], writes)
        except Conflict as e:
            raise Fenced(f"another process fills cluster {self.cluster.id} now; let it finish") from e

    async def complete(self) -> None:
        """The last step: from here on the store can be used. Raises as ``commit``."""
        await self.commit([Put(keys.CLUSTER, keys.encode(self.cluster)), Delete(keys.ADOPTING)])


@dataclass(frozen=True)
class Origin:
    """What a store is filled from. revision: of its metadata."""

    cluster: str
    revision: Revision


async def claim(meta: MetaStore, name: str, places: Sequence[Place], advice: str, origin: Origin) -> Claim:
    """Claims an unused store, or one whose filling from the same origin was interrupted, for filling it.

    Others as for ``establish``. Raises ``StartRefused`` when the store is used or holds a part of something else."""
    return await _Identity(meta, name, places, advice).claim(origin)


class _Identity:
    def __init__(self, meta: MetaStore, name: str, places: Sequence[Place], advice: str) -> None:
        self._meta, self._name, self._places, self._advice = meta, name, places, advice

    async def step(self) -> Cluster | None:
        """One step towards a complete store; its identity once it is one."""
        # The metadata store first: what it says was complete is found complete in the other places.
        complete, creating = await self._read()
        held = [(place, self._decode(place.name, await place.read())) for place in self._places]
        if complete:
            for place, found in held:
                self._demand(place, found, complete)
            return complete
        if creating is None:
            await self._begin([(place, found) for place, found in held if found])
        else:
            await self._spread(*creating, held)
        return None

    async def claim(self, origin: Origin) -> Claim:
        complete, creating = await self._read()
        if used := complete or (creating and creating[0]):
            raise StartRefused(
                f"{self._name} belongs to cluster {used.id} already: only stores that nothing uses can be filled;"
                f" {self._advice}"
            )
        held = [(place, self._decode(place.name, await place.read())) for place in self._places]
        item = await self._meta.get(keys.ADOPTING)
        if item is None:
            await self._demand_unused([(place, found) for place, found in held if found])
            adoption = Adoption(Cluster(uuid.uuid4().hex, FORMAT), origin.cluster, origin.revision)
        else:
            adoption = replace(self._resumed(item.value, origin), revision=origin.revision)
            for place in (place for place, found in held if not found):
                if content := await place.used():
                    raise StartRefused(f"{place.name} has no cluster id, but {content} is there; {self._advice}")
        conditions = [Condition(key, Revision(0)) for key in (keys.CLUSTER, keys.CLUSTER_CREATING)]
        conditions.append(Condition(keys.ADOPTING, item.revision if item else Revision(0)))
        try:
            epoch = await self._meta.commit(conditions, [Put(keys.ADOPTING, keys.encode(adoption))])
        except Conflict as e:
            raise StartRefused(f"{self._name}: another process begins to use it right now") from e
        await self._write(adoption.cluster, held)
        return Claim(adoption.cluster, self._meta, epoch)

    def _resumed(self, value: bytes, origin: Origin) -> Adoption:
        adoption = keys.decode(Adoption, value)
        if not 1 <= adoption.cluster.format <= FORMAT:
            raise StartRefused(
                f"{self._name} has format {adoption.cluster.format}, this version reads up to {FORMAT};"
                " use the version that began to fill it"
            )
        if adoption.source != origin.cluster:
            raise StartRefused(
                f"{self._name} holds a part of cluster {adoption.source}, not of {origin.cluster}:"
                f" finish that adoption first; or {self._advice}"
            )
        if origin.revision < adoption.revision:
            raise StartRefused(
                f"cluster {origin.cluster} is older than it was when it began to be copied to {self._name}"
                f" (revision {origin.revision}, then {adoption.revision}): it was restored meanwhile; {self._advice}"
            )
        return adoption

    async def _read(self) -> tuple[Cluster | None, tuple[Cluster, Revision] | None]:
        """(identity of a complete store, identity of one that is being created and its revision)."""
        # In this order: the two change together, so that an identity is never missed.
        creating, complete = await self._meta.get(keys.CLUSTER_CREATING), await self._meta.get(keys.CLUSTER)
        begun = self._decode(self._name, creating.value) if creating else None
        return (
            self._decode(self._name, complete.value) if complete else None,
            (begun, creating.revision) if creating and begun else None,
        )

    async def _begin(self, held: Sequence[tuple[Place, Cluster]]) -> None:
        """Chooses an identity for a store that holds nothing yet."""
        if item := await self._meta.get(keys.ADOPTING):
            raise StartRefused(f"{self._name} {unfinished(item.value)}")
        try:
            await self._demand_unused(held)
        except StartRefused:
            if await self._read() != (None, None):
                # Another process began in the meantime.
                return
            raise
        new = Cluster(uuid.uuid4().hex, FORMAT)
        absent = [Condition(key, Revision(0)) for key in (keys.CLUSTER, keys.CLUSTER_CREATING, keys.ADOPTING)]
        await self._commit(absent, [Put(keys.CLUSTER_CREATING, keys.encode(new))])

    async def _demand_unused(self, held: Sequence[tuple[Place, Cluster]]) -> None:
        """held: the places that have an identity."""
        complaint = ""
        if held:
            place, found = held[0]
            complaint = f"{self._name} has no cluster id, but {place.name} belongs to cluster {found.id}"
        elif used := await self._used():
            complaint = f"nothing has a cluster id, but {used} is there: it was lost, or this belongs to something else"
        if complaint:
            raise StartRefused(f"{complaint}; {self._advice}")

    async def _used(self) -> str:
        items, _ = await self._meta.list("")
        if items:
            return f"{items[0].key} in {self._name}"
        for place in self._places:
            if used := await place.used():
                return used
        return ""

    async def _spread(self, cluster: Cluster, revision: Revision, held: Sequence[tuple[Place, Cluster | None]]) -> None:
        await self._write(cluster, held)
        conditions = [Condition(keys.CLUSTER_CREATING, revision), Condition(keys.CLUSTER, Revision(0))]
        await self._commit(conditions, [Put(keys.CLUSTER, keys.encode(cluster)), Delete(keys.CLUSTER_CREATING)])

    async def _write(self, cluster: Cluster, held: Sequence[tuple[Place, Cluster | None]]) -> None:
        """Every place has the identity when this returns."""
        for place, found in held:
            if found:
                self._demand(place, found, cluster)
            else:
                await place.write(_encode(cluster))

    async def _commit(self, conditions: Sequence[Condition], writes: Sequence[Put | Delete]) -> None:
        try:
            await self._meta.commit(conditions, writes)
        except Conflict:
            # Another process did this step, or one after it.
            return

    def _demand(self, place: Place, found: Cluster | None, expected: Cluster) -> None:
        if found is None:
            raise StartRefused(
                f"{place.name} has no cluster id, expected {expected.id} as in {self._name}:"
                f" it was emptied or replaced; {self._advice}"
            )
        if found.id != expected.id:
            raise StartRefused(
                f"{place.name} belongs to cluster {found.id}, {self._name} to {expected.id}:"
                f" two stores are mixed; {self._advice}"
            )

    def _decode(self, name: str, value: bytes | None) -> Cluster | None:
        if value is None:
            return None
        try:
            found = _parse(value)
        except (DecodeError, orjson.JSONDecodeError, KeyError, TypeError, ValueError) as e:
            raise StartRefused(f"{name} is damaged: its cluster id cannot be read ({e!r}); {self._advice}") from e
        if not 1 <= found.format <= FORMAT:
            raise StartRefused(
                f"{name} has format {found.format}, this version reads up to {FORMAT}; start the version that wrote it"
            )
        return found


def unfinished(value: bytes) -> str:
    """What is to be said of a store with this value under ``ADOPTING``."""
    try:
        source = keys.decode(Adoption, value).source
    except DecodeError:
        source = "(unreadable)"
    return (
        f"holds a part of cluster {source}: an adoption was begun and is not finished, so nothing is served from here;"
        " run the same 'sheafdb admin adopt' again, it goes on where it was"
    )


def _encode(cluster: Cluster) -> bytes:
    """JSON: an operator reads it, in a bucket or folder, without our help."""
    return orjson.dumps({"cluster": cluster.id, "format": cluster.format}, option=orjson.OPT_APPEND_NEWLINE)


def _parse(value: bytes) -> Cluster:
    if not value.lstrip().startswith(b"{"):
        # The metadata store's form, which logs of the first version hold too.
        found = keys.decode(Cluster, value)
    else:
        fields = orjson.loads(value)
        found = Cluster(fields["cluster"], fields["format"])
    if not isinstance(found.id, str) or not found.id or not isinstance(found.format, int):
        raise ValueError(f"{found}")
    return found


async def records_in(log: Log, name: str) -> str:
    """What ``Place.used`` says of a log."""
    ends = await log.end([Channel(c) for c in range(log.channels)])
    return f"a record in channel {next(c for c, end in enumerate(ends) if end)} of {name}" if any(ends) else ""
