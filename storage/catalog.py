"""The catalog as every role reads it: collections and their placement, always current."""

from collections.abc import Awaitable

from core.catalog import DEFAULT_DATABASE, Collection, Placement
from core.errors import CollectionNotFound, DatabaseNotFound
from core.ids import CollectionId, Revision
from core.latest import Latest
from storage import keys
from storage.meta.mirror import Mirror
from storage.meta.port import MetaStore


class Catalog:
    """Mirrors of collections and placements with look-up by name. Reads are plain dict look-ups."""

    def __init__(self, meta: MetaStore) -> None:
        self.collections: Mirror[Collection] = Mirror(meta, keys.COLLECTIONS, Collection)
        self.placements: Mirror[Placement] = Mirror(meta, keys.PLACEMENTS, Placement)
        self._by_name: dict[tuple[str, str], Collection] = {}
        self._names: dict[str, tuple[str, str]] = {}
        self._meta = meta
        self._caught_up: Latest[None] = Latest(self._catch_up, "catching up with definitions")

    async def start(self) -> None:
        await self.collections.start()
        await self.placements.start()
        self.collections.listen(self._index)

    async def close(self) -> None:
        await self.collections.close()
        await self.placements.close()

    def _index(self, key: str, value: Collection | None) -> None:
        old = self._names.pop(key, None)
        # A name may already belong to a newer collection: remove only what this key put there.
        holder = self._by_name.get(old) if old else None
        if old and holder and keys.collection(holder.id) == key:
            del self._by_name[old]
        if value and not value.dropped:
            self._names[key] = (value.database, value.name)
            self._by_name[value.database, value.name] = value

    def get(self, id: CollectionId) -> Collection | None:
        """The collection with this id, if it exists and is not dropped."""
        value = self.collections.values.get(keys.collection(id))
        return None if value is None or value.dropped else value

    def find(self, database: str, name: str) -> Collection:
        """The collection of that name; raises ``DatabaseNotFound``, ``CollectionNotFound``."""
        found = self._by_name.get((database or DEFAULT_DATABASE, name))
        if found is not None:
            return found
        self.check_database(database)
        raise CollectionNotFound(name, database or DEFAULT_DATABASE)

    def check_database(self, database: str) -> None:
        """Raises ``DatabaseNotFound`` for any database but the default one."""
        if database not in ("", DEFAULT_DATABASE):
            raise DatabaseNotFound(database)

    def all(self, database: str = DEFAULT_DATABASE) -> list[Collection]:
        """The collections of a database, oldest first."""
        self.check_database(database)
        return sorted(self._by_name.values(), key=lambda c: c.id)

    def placement(self, id: CollectionId) -> Placement | None:
        return self.placements.values.get(keys.placement(id))

    async def wait(self, revision: Revision) -> None:
        """Returns once the DDL committed at ``revision`` is seen here."""
        await self.collections.wait(revision)

    def catch_up(self) -> Awaitable[None]:
        """Done once all DDL that anyone committed before this call is seen here. Fails with ``Unavailable`` or
        ``Timeout``."""
        return self._caught_up.ask()

    async def _catch_up(self) -> None:
        await self.wait(await defined(self._meta))


async def defined(meta: MetaStore) -> Revision:
    """That of the last DDL that anyone committed before the call. Raises ``Unavailable``, ``Timeout``."""
    last = await meta.get(keys.DEFINED)
    return last.revision if last else Revision(0)
