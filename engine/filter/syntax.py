"""What a filter's text says, before anything is known of the collection: the untyped tree.

Nodes are immutable and shared between threads by the parser's cache.
"""

from dataclasses import dataclass

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True)
class Literal:
    value: Scalar


@dataclass(frozen=True, slots=True)
class Literals:
    """A list of plain literals, ``[1, 2, 3]``."""

    values: list[Scalar]


@dataclass(frozen=True, slots=True)
class Sequence:
    """Any other list: empty, nested, or with expressions and templates in it."""

    items: tuple["Syntax", ...]


@dataclass(frozen=True, slots=True)
class Template:
    """``{name}``: a value that comes beside the text."""

    name: str


@dataclass(frozen=True, slots=True)
class Name:
    """A field or dynamic key with its subscripts; the keys as written (an int is an unquoted one)."""

    name: str
    keys: tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``op``: one of ``+ - * / % **``."""

    op: str
    left: "Syntax"
    right: "Syntax"


@dataclass(frozen=True, slots=True)
class Signed:
    negative: bool
    operand: "Syntax"


@dataclass(frozen=True, slots=True)
class Comparison:
    """``operands[0] ops[0] operands[1] ops[1] ...``."""

    operands: tuple["Syntax", ...]
    ops: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Membership:
    """``operand in items``."""

    operand: "Syntax"
    items: "Syntax"


@dataclass(frozen=True, slots=True)
class Match:
    """``operand like pattern``."""

    operand: "Syntax"
    pattern: "Syntax"


@dataclass(frozen=True, slots=True)
class Null:
    """``operand is null``."""

    operand: "Syntax"


@dataclass(frozen=True, slots=True)
class Exists:
    operand: "Syntax"


@dataclass(frozen=True, slots=True)
class Call:
    """``name`` in lower case."""

    name: str
    arguments: tuple["Syntax", ...]


@dataclass(frozen=True, slots=True)
class Negation:
    operand: "Syntax"


@dataclass(frozen=True, slots=True)
class Junction:
    """``and`` or ``or`` of two or more operands."""

    conjunction: bool
    operands: tuple["Syntax", ...]


Syntax = (
    Literal
    | Literals
    | Sequence
    | Template
    | Name
    | Arithmetic
    | Signed
    | Comparison
    | Membership
    | Match
    | Null
    | Exists
    | Call
    | Negation
    | Junction
)
