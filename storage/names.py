"""Names of objects. Ids come from leased ranges, so no name is ever used twice."""

from core.catalog import Collection
from core.ids import IndexId, SegmentId

READABLE_LENGTH = 200
"""Characters of a collection's name that go into a file name, which may have 255 bytes with the id."""


def folder(collection: Collection) -> str:
    """Ends with a slash; everything of a collection is below it (its name at creation, for humans)."""
    return f"{collection.database}/{collection.name[:READABLE_LENGTH]}-{collection.id}/"


def segment(folder: str, shard: int, id: SegmentId) -> str:
    return f"{folder}shard={shard}/segment-{id}.parquet"


def tombstones(folder: str, shard: int, id: int) -> str:
    return f"{folder}shard={shard}/tombstones-{id}.parquet"


def index(segment_name: str, index_id: IndexId, id: int) -> str:
    """Beside its segment; ``id`` tells a rebuilt index from the one it replaces."""
    return f"{segment_name.removesuffix('.parquet')}.index-{index_id}-{id}"
