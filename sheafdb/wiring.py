"""What a role finds in its process, and what it puts there."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from core.clock import HybridClock
from core.ids import NodeId
from core.settings import Settings
from rpc.answering import Handlers
from rpc.direct import Handlers as DirectHandlers
from rpc.roles import Coordinator
from sheafdb.lifetime import Part
from sheafdb.remote_nodes import RemoteNodes
from storage.store import Store


@dataclass(frozen=True)
class Place:
    """What a role finds. coordinator: whoever leads. scratch: a folder of its own, empty."""

    settings: Settings
    node: NodeId
    store: Store
    nodes: RemoteNodes
    coordinator: Coordinator
    clock: HybridClock
    scratch: Path


class Front(Protocol):
    """The port at which others reach a role."""

    port: int

    async def drain(self, grace_s: float) -> None:
        """Sends new requests away, finishes running ones within ``grace_s``, closes the port."""
        ...


@dataclass(frozen=True)
class Wiring:
    """A role put together.

    parts: by name, in the order in which they start.
    handlers: what other nodes call it by; direct_handlers: and what they may call directly. listen: opens a port of
        another kind instead.
    awaited: what keeps it from its share of the work, once the others know it; "" = nothing.
    holds: whether it has what another node of the role would take over, if it could.
    resign: gives up what it is, before it leaves.
    """

    parts: Sequence[tuple[str, Part]]
    handlers: Handlers = field(default_factory=dict)
    direct_handlers: DirectHandlers | None = None
    listen: Callable[[], Awaitable[Front]] | None = None
    awaited: Callable[[], str] | None = None
    holds: Callable[[], Awaitable[bool]] | None = None
    resign: Callable[[], Awaitable[None]] | None = None
