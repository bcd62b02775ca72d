"""The index object: a payload, a header in JSON, and a fixed tail. The payload comes first, so that
faiss maps it as its own file and its arrays keep their alignment.

    payload | header (JSON) | tail: format u16, header bytes u32, xxh3-64 of all before it u64, magic

All little endian. The digest covers everything but itself and the magic; any damage is ``Corrupted``,
and whoever holds the manifest has the index built again.
"""

import json
import mmap
import struct
from dataclasses import asdict, dataclass
from pathlib import Path

import xxhash

from core.errors import Corrupted

FORMAT = 1
MAGIC = b"SHEAFIDX"
_LENGTHS = struct.Struct("<HI")
_DIGEST = struct.Struct("<Q8s")
TAIL_BYTES = _LENGTHS.size + _DIGEST.size


@dataclass(frozen=True, slots=True)
class Header:
    """kind: "hnsw" (faiss), or "flat" (the vectors row by row, then float32 norms unless binary or IP).

    engine: library, its version and the codes, as the manifest names it. dim: components.
    """

    kind: str
    engine: str
    metric: str
    rows: int
    dim: int


def seal(path: Path, header: Header) -> None:
    """Appends header and tail to a file that holds the payload."""
    text = json.dumps(asdict(header), separators=(",", ":")).encode()
    rest = text + _LENGTHS.pack(FORMAT, len(text))
    digest = xxhash.xxh3_64()
    with path.open("r+b") as file:
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as payload:
            digest.update(payload)
        digest.update(rest)
        file.seek(0, 2)
        file.write(rest + _DIGEST.pack(digest.intdigest(), MAGIC))


def check(path: Path) -> tuple[Header, mmap.mmap]:
    """The header of a whole and undamaged file, and the file mapped. Raises ``Corrupted``."""
    try:
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError) as e:
        raise Corrupted(path, f"cannot be read as an index: {e}") from e
    size = len(mapped)
    if size < TAIL_BYTES or mapped[-len(MAGIC) :] != MAGIC:
        raise Corrupted(path, "not an index object, or cut short")
    digest, _ = _DIGEST.unpack(mapped[size - _DIGEST.size :])
    with memoryview(mapped) as view, view[: size - _DIGEST.size] as covered:
        if xxhash.xxh3_64_intdigest(covered) != digest:
            raise Corrupted(path, "checksum does not match")
    form, length = _LENGTHS.unpack(mapped[size - TAIL_BYTES : size - _DIGEST.size])
    if form != FORMAT:
        raise Corrupted(path, f"index format {form}, this version reads {FORMAT}")
    try:
        fields = json.loads(mapped[size - TAIL_BYTES - length : size - TAIL_BYTES])
        return Header(**{name: fields[name] for name in Header.__slots__}), mapped
    except (ValueError, KeyError, TypeError) as e:
        raise Corrupted(path, f"header does not parse: {e}") from e
