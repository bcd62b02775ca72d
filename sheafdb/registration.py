"""What a node says about itself under its key in the metadata store."""

from dataclasses import asdict, dataclass

import orjson

from core.errors import Corrupted

FORMAT = 2
"""Of what nodes send each other: it rises when a node of the version before could not understand it."""


@dataclass(frozen=True, slots=True)
class Registration:
    """address: host:port that other nodes (of a proxy: clients) reach it at. version: of the program.
    life: unique to the process. direct_port: of direct calls, on the same host; 0 = it answers none."""

    address: str
    format: int
    version: str
    life: str
    direct_port: int = 0

    @property
    def understood(self) -> bool:
        return self.format == FORMAT

    def text(self) -> str:
        """As it is stored."""
        return orjson.dumps(asdict(self)).decode()

    @classmethod
    def parse(cls, text: str) -> "Registration":
        """Raises ``Corrupted``. Fields that a newer version adds are left out."""
        try:
            found = orjson.loads(text)
            return cls(**{name: found[name] for name in cls.__slots__ if name in found})
        except (orjson.JSONDecodeError, KeyError, TypeError) as e:
            raise Corrupted("a node's registration", f"{text[:80]!r}: {e}") from e
