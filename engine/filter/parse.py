"""Text to syntax tree, within bounds on length, nesting and size."""

import re
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

from lark import Lark, Token, Transformer, v_args
from lark.exceptions import UnexpectedInput, UnexpectedToken

from core.errors import FilterError, NotYet
from core.limits import FILTER_DEPTH_MAX, FILTER_LENGTH_MAX, FILTER_TERMS_MAX
from engine.filter import literals
from engine.filter.functions import NOT_YET
from engine.filter.syntax import (
    Arithmetic,
    Call,
    Comparison,
    Exists,
    Junction,
    Literal,
    Literals,
    Match,
    Membership,
    Name,
    Negation,
    Null,
    Sequence,
    Signed,
    Syntax,
    Template,
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """shape: the text with every literal replaced by ``?``; safe to log, equal for equal questions."""

    tree: Syntax
    shape: str


def parse(text: str) -> Parsed:
    """The syntax tree of a filter. Raises FilterError: syntax, or a bound of ``core.limits``;
    NotYet when the text uses a function of Milvus that this version does not have."""
    _check_length(text)
    try:
        return _parse(text)
    except UnexpectedInput as e:
        missing = re.search(rf"\b({'|'.join(NOT_YET)})\s*\(", _STRING.sub('""', text), re.IGNORECASE)
        if missing:
            raise NotYet(f"{missing[1].lower()} is not supported in filters yet") from None
        raise FilterError(_explain(text, e)) from None


def _check_length(text: str) -> None:
    if len(text) <= FILTER_LENGTH_MAX:
        return
    # Lists of keys cost little and are bounded by the size of a request; the rest is what must be short.
    length = len(_LIST.sub("[]", text))
    if length > FILTER_LENGTH_MAX:
        raise FilterError(f"filter has {length} characters outside its lists, the limit is {FILTER_LENGTH_MAX}")


def _parse(text: str) -> Parsed:
    session = _parser().parse_interactive(text)
    shape: list[str] = []
    terms = brackets = depth = 0
    token: Token | None = None
    for token in session.iter_parse():
        kind = token.type
        shape.append(_SHAPES.get(kind) or _shape(token))
        if kind in _OPENING:
            depth += 1
            brackets += 1
            if depth > FILTER_DEPTH_MAX:
                raise FilterError(f"filter is nested {depth} deep, the limit is {FILTER_DEPTH_MAX}")
        elif kind in _CLOSING:
            depth -= 1
        else:
            terms += _TERMS.get(kind, 1)
        if terms > FILTER_TERMS_MAX or brackets > FILTER_TERMS_MAX:
            raise FilterError(f"filter has {max(terms, brackets)} terms or more, the limit is {FILTER_TERMS_MAX}")
    return Parsed(session.feed_eof(token), " ".join(shape))


_STRING = re.compile(r"""\"(?:[^"\\]|\\[\s\S])*+"|'(?:[^'\\]|\\[\s\S])*+'""")
_LIST = re.compile(rf"\[(?:[\d\s,.+\-eE]|{_STRING.pattern})*+\]")
_SPACE = re.compile(r"\s+")
_OPENING, _CLOSING = frozenset({"LPAR", "LSQB", "CALL"}), frozenset({"RPAR", "RSQB"})
_TERMS = {"_AND": 0, "_OR": 0, "TEST": 3, "CALL_TEST": 3}
_SHAPES = {
    **dict.fromkeys(("INTEGER", "FLOAT", "BOOLEAN", "STRING", "TEMPLATE"), "?"),
    "LITERALS": "[?]",
    "_OR": "or",
    "_AND": "and",
    "_NOT": "not",
    "_IN": "in",
    "_LIKE": "like",
    "_IS_NULL": "is null",
    "_IS_NOT_NULL": "is not null",
    "_EXISTS": "exists",
}


_PATH = rf"((?:\$meta|\w+)(?:\s*\[\s*(?:\d+|{_STRING.pattern})\s*\])*+)"
_TEST = re.compile(rf"{_PATH}\s*+([<>=!]=?|like)\s*+([\s\S]*\S)\s*", re.IGNORECASE)
_CALL_TEST = re.compile(rf"(\w+)\s*\(\s*{_PATH}\s*,\s*([\s\S]*\S)\s*\)\s*")


def _split(test: Token) -> Token:
    """Gives a test that is one token its parts as value: path, operator, literal; or function, path, literal."""
    match = (_TEST if test.type == "TEST" else _CALL_TEST).fullmatch(test)
    assert match is not None
    test.value = match.groups()
    return test


def _shape(token: Token) -> str:
    if token.type == "TEST":
        path, op, _ = token.value
        return f"{_SPACE.sub('', path)} {op.lower()} ?"
    if token.type == "CALL_TEST":
        function, path, _ = token.value
        return f"{function}( {_SPACE.sub('', path)} , ? )"
    return _SPACE.sub("", token)


def _explain(text: str, error: UnexpectedInput) -> str:
    """Milvus's wording: the column counts from 0; at the end of the text the last word is to blame."""
    if isinstance(error, UnexpectedToken) and error.token.type == "$END":
        end = len(text.rstrip())
        line = text.count("\n", 0, end) + 1
        column = end - (text.rfind("\n", 0, end) + 1)
        last = text[max(0, end - 40) : end].rsplit(maxsplit=1)[-1]
        return f"line {line}:{column} no viable alternative at input '{last}'"
    where = f"line {error.line}:{error.column - 1}"
    if isinstance(error, UnexpectedToken):
        # Of a test that is one token it is the name that has no place there.
        token = error.token.value[0] if error.token.type in ("TEST", "CALL_TEST") else error.token
        return f"{where} no viable alternative at input '{token[:40].rstrip()}'"
    return f"{where} token recognition error at: '{text[error.pos_in_stream or 0]}'"


@cache
def _parser() -> Lark:
    """Built on first use: it takes about 60 ms, which a server's start need not wait for."""
    grammar = files("engine.filter").joinpath("grammar.lark").read_text()
    split = {"TEST": _split, "CALL_TEST": _split}
    return Lark(grammar, parser="lalr", maybe_placeholders=False, transformer=_Builder(), lexer_callbacks=split)


_COMPARISONS = frozenset({"==", "!=", "<", "<=", ">", ">="})


@v_args(inline=True)
class _Builder(Transformer[Token, Syntax]):
    """One method per rule of the grammar."""

    def start(self, tree: Syntax) -> Syntax:
        return tree

    def integer(self, token: Token) -> Syntax:
        return Literal(literals.integer(token))

    def floating(self, token: Token) -> Syntax:
        return Literal(literals.floating(token))

    def boolean(self, token: Token) -> Syntax:
        return Literal(token.lower() == "true")

    def string(self, token: Token) -> Syntax:
        return Literal(literals.string(token))

    def template(self, token: Token) -> Syntax:
        return Template(token[1:-1].strip())

    def plain_list(self, token: Token) -> Syntax:
        return Literals(literals.plain_list(token))

    def sequence(self, *items: Syntax) -> Syntax:
        return Sequence(items)

    def path(self, token: Token) -> Syntax:
        return _name(token)

    def call(self, token: Token, *arguments: Syntax) -> Syntax:
        return Call(token[:-1].rstrip().lower(), arguments)

    def signed(self, sign: Token, operand: Syntax) -> Syntax:
        if isinstance(operand, Literal) and not isinstance(operand.value, bool | str):
            return Literal(-operand.value) if sign == "-" else operand
        return Signed(sign == "-", operand)

    def test(self, token: Token) -> Syntax:
        path, op, literal = token.value
        name, value = _name(path), Literal(literals.scalar(literal))
        return Comparison((name, value), (op,)) if op in _COMPARISONS else Match(name, value)

    def call_test(self, token: Token) -> Syntax:
        function, path, literal = token.value
        return Call(function.lower(), (_name(path), Literal(literals.scalar(literal))))

    def power(self, left: Syntax, right: Syntax) -> Syntax:
        return Arithmetic("**", left, right)

    def arithmetic(self, first: Syntax, *rest: Any) -> Syntax:
        for op, operand in zip(rest[::2], rest[1::2], strict=True):
            first = Arithmetic(str(op), first, operand)
        return first

    def comparison(self, *parts: Any) -> Syntax:
        return Comparison(parts[::2], tuple(map(str, parts[1::2])))

    def contained(self, operand: Syntax, items: Syntax) -> Syntax:
        return Membership(operand, items)

    def not_contained(self, operand: Syntax, items: Syntax) -> Syntax:
        return Negation(Membership(operand, items))

    def like(self, operand: Syntax, pattern: Syntax) -> Syntax:
        return Match(operand, pattern)

    def is_null(self, operand: Syntax) -> Syntax:
        return Null(operand)

    def is_not_null(self, operand: Syntax) -> Syntax:
        return Negation(Null(operand))

    def exists(self, operand: Syntax) -> Syntax:
        return Exists(operand)

    def negated(self, operand: Syntax) -> Syntax:
        return operand.operand if isinstance(operand, Negation) else Negation(operand)

    def conjunction(self, *operands: Syntax) -> Syntax:
        return Junction(True, operands)

    def disjunction(self, *operands: Syntax) -> Syntax:
        return Junction(False, operands)


_KEY = re.compile(rf"\[\s*(?:({_STRING.pattern})|(\d+))\s*\]")


def _name(text: str) -> Name:
    if "[" not in text:
        return Name(str(text), ())
    name = text.partition("[")[0].rstrip()
    keys = tuple(literals.string(quoted) if quoted else int(bare) for quoted, bare in _KEY.findall(text, len(name)))
    return Name(name, keys)
