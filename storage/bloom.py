"""Bloom filters over hashed keys: which segments surely do not hold a key.

Split-block filters, as in the Parquet format's specification ("Parquet Bloom Filter"): each key
sets one bit in each of the eight words of one 256-bit block, so a look-up touches one cache line.
"""

import numpy as np

BITS_PER_KEY = 10
"""About one false positive in a hundred."""
_BLOCK_BITS = 256
_SALTS = np.array(
    [0x47B6137B, 0x44974D91, 0x8824AD5B, 0xA2B7289D, 0x705495C7, 0x2DF1424B, 0x9EFC4947, 0x5C6BFB31], np.uint32
)
_WORDS = np.arange(8, dtype=np.uint64) * np.uint64(32)


class Bloom:
    """An immutable filter. ``bits``: uint8 [blocks * 32]."""

    def __init__(self, bits: np.ndarray) -> None:
        if bits.size == 0 or bits.size % (_BLOCK_BITS // 8):
            raise ValueError(f"{bits.size} bytes are no bloom filter")
        self.bits = bits

    @classmethod
    def build(cls, hashes: np.ndarray) -> "Bloom":
        """The filter that contains these hashes (uint64 [n], see ``core.hashing``)."""
        blocks = max(1, -(-len(hashes) * BITS_PER_KEY // _BLOCK_BITS))
        flags = np.zeros(blocks * _BLOCK_BITS, np.bool_)
        flags[_bit_positions(hashes, blocks).ravel()] = True
        return cls(np.packbits(flags, bitorder="little"))

    def may_contain(self, hashes: np.ndarray) -> np.ndarray:
        """bool [n]: False = surely not in the filter."""
        at = _bit_positions(hashes, len(self.bits) * 8 // _BLOCK_BITS)
        found = self.bits[at >> np.uint64(3)] >> (at & np.uint64(7)).astype(np.uint8) & np.uint8(1)
        return np.logical_and.reduce(found, axis=1)

    def to_bytes(self) -> bytes:
        return self.bits.tobytes()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Bloom":
        """Raises ``ValueError`` when the length is not that of a filter."""
        return cls(np.frombuffer(data, np.uint8))


def _bit_positions(hashes: np.ndarray, blocks: int) -> np.ndarray:
    """uint64 [n, 8]: the bit each key has in each word of its block."""
    block = ((hashes >> np.uint64(32)) * np.uint64(blocks)) >> np.uint64(32)
    with np.errstate(over="ignore"):
        bit = (hashes.astype(np.uint32)[:, None] * _SALTS) >> np.uint32(27)
    return block[:, None] * np.uint64(_BLOCK_BITS) + _WORDS + bit
