"""``like`` patterns: ``%`` any characters, ``_`` exactly one, ``\\`` before either makes it literal."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import pyarrow as pa

from core.errors import FilterError
from core.limits import FILTER_PATTERN_MAX
from engine.filter.batch import as_bool
from engine.filter.kernels import pc

ALTERNATIVES_MIN = 16
"""Patterns from which one regular expression beats one pass for each (measured on 100 to 100,000 short strings)."""
ALTERNATIVE_LENGTH_MAX = 64
"""Longer patterns have a pass of their own: compiling them costs more."""
ALTERNATIVES_CHARACTERS = 16_384
"""Characters of such an expression: RE2 refuses to compile what would take more than 8 MB."""

_ANY, _ONE = object(), object()


@dataclass(frozen=True)
class Pattern:
    """kind: how to match; operand: the literal text, or the regular expression (RE2: linear time)."""

    kind: Literal["equal", "prefix", "suffix", "infix", "regex"]
    operand: str

    def match(self, strings: pa.Array) -> np.ndarray:
        """bool [n]; null is False."""
        match self.kind:
            case "equal":
                return as_bool(pc.equal(strings, self._scalar))
            case "prefix":
                return as_bool(pc.starts_with(strings, self.operand))
            case "suffix":
                return as_bool(pc.ends_with(strings, self.operand))
            case "infix":
                return as_bool(pc.match_substring(strings, self.operand))
            case "regex":
                return as_bool(pc.match_substring_regex(strings, self.operand))

    @property
    def regex(self) -> str:
        """The regular expression that matches the same."""
        match self.kind:
            case "equal":
                return rf"\A{re.escape(self.operand)}\z"
            case "prefix":
                return rf"\A{re.escape(self.operand)}"
            case "suffix":
                return rf"{re.escape(self.operand)}\z"
            case "infix":
                return re.escape(self.operand)
            case "regex":
                return self.operand

    @cached_property
    def _scalar(self) -> pa.Scalar:
        return pa.scalar(self.operand)


def compile_pattern(text: str) -> Pattern:
    """Raises FilterError for a pattern that would take too long to match."""
    parts = _parts(text)
    wildcards = [i for i, part in enumerate(parts) if not isinstance(part, str)]
    literal = "".join(part for part in parts if isinstance(part, str))
    if not wildcards:
        return Pattern("equal", literal)
    if all(parts[i] is _ANY for i in wildcards):
        first, last = parts[0] is _ANY, parts[-1] is _ANY
        if len(parts) == 1 + first + last:
            return Pattern("infix" if first and last else "suffix" if first else "prefix", literal)
        if len(parts) == 1:
            return Pattern("prefix", "")
    if len(text) > FILTER_PATTERN_MAX:
        raise FilterError(f"like pattern has {len(text)} characters, the limit is {FILTER_PATTERN_MAX}")
    regex = "".join(".*" if p is _ANY else "." if p is _ONE else re.escape(str(p)) for p in parts)
    return Pattern("regex", rf"(?s)\A{regex}\z")


def any_of(patterns: list[Pattern]) -> Iterator[Pattern]:
    """Few patterns of which at least one matches just where one of these does.

    Long ones stay as they are, and those with wildcards inside: RE2 takes linear time for many of them, too, but
    the factor grows with their number.
    """
    plain = [p for p in patterns if p.kind != "regex" and len(p.operand) <= ALTERNATIVE_LENGTH_MAX]
    if len(plain) < ALTERNATIVES_MIN:
        yield from patterns
        return
    yield from (p for p in patterns if p.kind == "regex" or len(p.operand) > ALTERNATIVE_LENGTH_MAX)
    alternatives: list[str] = []
    characters = 0
    for regex in (p.regex for p in plain):
        if alternatives and characters + len(regex) > ALTERNATIVES_CHARACTERS:
            yield Pattern("regex", "|".join(alternatives))
            alternatives, characters = [], 0
        alternatives.append(regex)
        characters += len(regex) + 1
    yield Pattern("regex", "|".join(alternatives))


def _parts(text: str) -> list[object]:
    """Literal strings and wildcards in order; neighbouring ``%`` are one, literals are never empty."""
    parts: list[object] = []
    for match in re.finditer(r"(%+)|(_)|((?:[^%_\\]|\\[\s\S]?)+)", text):
        many, one, literal = match.groups()
        parts.append(_ANY if many else _ONE if one else "".join(re.split(r"\\([\s\S])", literal)))
    return parts
