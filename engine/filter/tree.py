"""The typed tree: what a filter means for one schema. Immutable, shared between threads.

*Values* have a type and give one value per row; *predicates* give true, false or unknown per row.
A tree is kept in negation normal form: ``Not`` stands only above a test (a predicate that is no
``And``, ``Or`` or ``Not``). De Morgan's laws hold in three-valued logic, so this changes no
result; and as a row is wanted only where the whole is true, ``And`` and ``Or`` never need to know
unknown from false: only the tests below them do.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from core.types import DataType

if TYPE_CHECKING:
    from engine.filter.functions import Function
    from engine.filter.like import Pattern


# --- values ----------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Literal:
    """``value``: bool, int, float, str, or a list for ARRAY."""

    value: Any
    type: DataType


@dataclass(frozen=True, slots=True)
class Column:
    name: str
    type: DataType
    element: DataType = DataType.NONE


@dataclass(frozen=True, slots=True)
class Element:
    """``name[index]`` of an ARRAY field; null beyond its end."""

    name: str
    index: int
    type: DataType


@dataclass(frozen=True, slots=True)
class Path:
    """The value at ``keys`` within a JSON field; no keys: the whole document. Null where it is missing."""

    name: str
    keys: tuple[str | int, ...]
    type: DataType = DataType.JSON


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """INT64, DOUBLE, or JSON where an operand is a JSON path and the type depends on the row."""

    op: str
    left: "Value"
    right: "Value"
    type: DataType


@dataclass(frozen=True, slots=True)
class Call:
    """A function of the table applied to what its check made of the arguments: a value or a test."""

    function: "Function"
    arguments: tuple[Any, ...]
    columns: frozenset[str]
    json: bool

    @property
    def type(self) -> DataType:
        return self.function.result


Value = Literal | Column | Element | Path | Arithmetic | Call


# --- predicates ------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Constant:
    value: bool


@dataclass(frozen=True, slots=True)
class Compare:
    """``op``: one of ``== != < <= > >=``; a literal stands on the right only."""

    op: str
    left: Value
    right: Value


@dataclass(frozen=True, slots=True)
class In:
    """Membership in ``values``: distinct, of the Arrow type of ``value``, without nulls."""

    value: Value
    values: pa.Array


@dataclass(frozen=True, slots=True)
class PathIn:
    """Membership of a JSON value in ``wanted`` (see ``documents.token``); unknown for a value
    whose type is none of ``types``."""

    value: Path
    wanted: frozenset[Any]
    types: frozenset[type]


@dataclass(frozen=True, slots=True)
class Like:
    value: Value
    pattern: "Pattern"


@dataclass(frozen=True, slots=True)
class IsNull:
    """Never unknown."""

    value: Value


Test = Compare | In | PathIn | Like | IsNull | Call


@dataclass(frozen=True, slots=True)
class Not:
    test: Test


@dataclass(frozen=True, slots=True)
class And:
    """``cheap`` operands first, over all rows; ``costly`` ones (they read JSON) over the rows left."""

    cheap: tuple["Predicate", ...]
    costly: tuple["Predicate", ...]

    @property
    def operands(self) -> tuple["Predicate", ...]:
        return self.cheap + self.costly


@dataclass(frozen=True, slots=True)
class Or:
    cheap: tuple["Predicate", ...]
    costly: tuple["Predicate", ...]

    @property
    def operands(self) -> tuple["Predicate", ...]:
        return self.cheap + self.costly


Predicate = Constant | Test | Not | And | Or
