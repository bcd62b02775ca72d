"""The schema of a collection and the Arrow form its rows take everywhere below the proxy.

A batch of rows is a ``pa.RecordBatch`` whose columns are the fields under their own names, in
schema order. The dynamic field is an ordinary field (``DYNAMIC``) of type JSON. JSON values are
compact UTF-8 text. Nothing else is in a batch: positions and time stamps belong to its record.
"""

from dataclasses import dataclass
from functools import cached_property

import pyarrow as pa

from core.ids import FieldId
from core.types import TYPES, DataType

DYNAMIC = "$meta"
"""Name of the dynamic field, as on the wire."""
FIRST_FIELD_ID = 100
"""Milvus reserves 0 (RowID) and 1 (Timestamp)."""
RESERVED_NAMES = frozenset({DYNAMIC, "RowID", "Timestamp", "__position", "__ts"})


@dataclass(frozen=True)
class Field:
    """One field. ``dim`` counts components (bits for BINARY_VECTOR); 0 where it has no meaning.

    default: JSON text of the default value, or "" for none.
    params: type parameters and properties that this version keeps but does not interpret.
    """

    id: FieldId
    name: str
    type: DataType
    primary: bool = False
    auto_id: bool = False
    nullable: bool = False
    partition_key: bool = False
    dynamic: bool = False
    description: str = ""
    dim: int = 0
    max_length: int = 0
    max_capacity: int = 0
    element_type: DataType = DataType.NONE
    default: str = ""
    params: tuple[tuple[str, str], ...] = ()

    @property
    def is_vector(self) -> bool:
        return TYPES[self.type].vector

    @cached_property
    def arrow_type(self) -> pa.DataType:
        if self.type is DataType.ARRAY:
            return pa.list_(TYPES[self.element_type].arrow(0))
        return TYPES[self.type].arrow(self.dim)

    @property
    def arrow_field(self) -> pa.Field:
        return pa.field(self.name, self.arrow_type, nullable=self.nullable)


@dataclass(frozen=True)
class Schema:
    """Fields in order (the dynamic field last, if any). ``version`` rises with every change."""

    fields: tuple[Field, ...]
    description: str = ""
    version: int = 1

    @cached_property
    def by_name(self) -> dict[str, Field]:
        return {f.name: f for f in self.fields}

    @cached_property
    def by_id(self) -> dict[FieldId, Field]:
        return {f.id: f for f in self.fields}

    @cached_property
    def primary(self) -> Field:
        return next(f for f in self.fields if f.primary)

    @cached_property
    def vectors(self) -> tuple[Field, ...]:
        return tuple(f for f in self.fields if f.is_vector)

    @cached_property
    def dynamic(self) -> bool:
        return DYNAMIC in self.by_name

    @cached_property
    def partition_key(self) -> Field | None:
        return next((f for f in self.fields if f.partition_key), None)

    @cached_property
    def arrow(self) -> pa.Schema:
        return pa.schema([f.arrow_field for f in self.fields])
