"""Protobuf's integers of variable length, for what is put on the wire without a message."""


def varint(n: int) -> bytes:
    """n: not negative. Seven bits a byte, the lowest first; all bytes but the last have the high bit set."""
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)
