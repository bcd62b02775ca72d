"""The roles' instances as one process knows them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from core.errors import Unavailable
from core.ids import NodeId
from rpc.roles import DataNode, IndexNode, QueryNode


@dataclass
class LocalNodes:
    """``rpc.roles.Nodes`` by look-up."""

    query: dict[NodeId, QueryNode] = field(default_factory=dict)
    data: dict[NodeId, DataNode] = field(default_factory=dict)
    index: list[IndexNode] = field(default_factory=list)

    def query_node(self, id: NodeId) -> QueryNode:
        if id not in self.query:
            raise Unavailable(f"query node {id} is not known here")
        return self.query[id]

    def data_node(self, id: NodeId) -> DataNode:
        if id not in self.data:
            raise Unavailable(f"data node {id} is not known here")
        return self.data[id]

    def index_nodes(self) -> Sequence[IndexNode]:
        return self.index
