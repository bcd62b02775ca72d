"""Where settings come from: defaults, then a YAML file, then the environment, then flags.

Every source gives text; one parser turns it into the type of the setting, so a value means the
same wherever it is written. Each value remembers its origin.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import Field, dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any, get_type_hints

import yaml

from core.errors import InvalidArgument
from core.settings import Settings

PREFIX = "SHEAFDB_"
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Given:
    """A value as somebody wrote it: ``origin`` says where, for errors and for ``sheafdb config``."""

    name: str
    text: str
    origin: str


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings in force and, by dotted name, where each came from."""

    settings: Settings
    origins: Mapping[str, str]

    def rows(self) -> list[tuple[str, Any, str]]:
        """(dotted name, value, origin) of every setting, in the order of ``core.settings``."""
        return [
            (name, getattr(getattr(self.settings, section), f.name), self.origins[name])
            for name, (section, f) in declared().items()
        ]


@cache
def declared() -> dict[str, tuple[str, Field[Any]]]:
    """Every setting there is: dotted name to (section, dataclass field)."""
    return {f"{section}.{f.name}": (section, f) for section, cls in _sections().items() for f in fields(cls)}


@cache
def _sections() -> dict[str, type[Any]]:
    return get_type_hints(Settings)


def load(file: Path | None, environ: Mapping[str, str], flags: Iterable[Given]) -> Configuration:
    """The settings; a later source wins. Raises ``InvalidArgument`` with one line that names the
    setting, the value and where it came from."""
    sections: dict[str, dict[str, Any]] = {section: {} for section in _sections()}
    origins = dict.fromkeys(declared(), DEFAULT)
    for given in (*(_from_file(file) if file else ()), *_from_environment(environ), *flags):
        if given.name not in declared():
            raise InvalidArgument(f"unknown setting {given.name} (from {given.origin})")
        section, f = declared()[given.name]
        sections[section][f.name] = _parse(f, given)
        origins[given.name] = given.origin
    settings = Settings(**{section: cls(**sections[section]) for section, cls in _sections().items()})
    _check_together(settings)
    return Configuration(settings, origins)


def from_flag(text: str) -> Given:
    """The value of ``--set section.name=value``."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InvalidArgument(f"--set takes section.name=value, not {text!r}")
    return Given(name.strip(), value.strip(), "--set")


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, value in sorted(environ.items()):
        # Only names with a double underscore are ours: Kubernetes sets SHEAFDB_PORT=tcp://... for a Service.
        if variable.startswith(PREFIX) and "__" in variable:
            section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
            yield Given(f"{section}.{name}", value, f"environment {variable}")


def _from_file(file: Path) -> Iterator[Given]:
    try:
        root = yaml.compose(file.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (OSError, UnicodeDecodeError) as e:
        raise InvalidArgument(f"configuration file {file}: {getattr(e, 'strerror', None) or e}") from None
    except yaml.YAMLError as e:
        raise InvalidArgument(f"configuration file {file}: {' '.join(str(e).split())}") from None
    if root is None:
        return
    seen: set[str] = set()
    for section, settings, _ in _entries(root, file, "sections"):
        for name, value, origin in _entries(settings, file, f"settings of {section}"):
            if not isinstance(value, yaml.ScalarNode) or value.tag.endswith(":null"):
                raise InvalidArgument(f"{section}.{name} must be a single value (from {origin})")
            if f"{section}.{name}" in seen:
                raise InvalidArgument(f"{section}.{name} is set twice (from {origin})")
            seen.add(f"{section}.{name}")
            yield Given(f"{section}.{name}", value.value, origin)


def _entries(node: yaml.Node, file: Path, what: str) -> Iterator[tuple[str, yaml.Node, str]]:
    if not isinstance(node, yaml.MappingNode):
        raise InvalidArgument(f"configuration file {file}: line {node.start_mark.line + 1}: expected {what}")
    for key, value in node.value:
        yield key.value, value, f"{file}:{key.start_mark.line + 1}"


def _parse(f: Field[Any], given: Given) -> Any:
    try:
        value = _PARSERS[type(f.default)](given.text)
    except ValueError:
        raise _wrong(given, f"expected {_NAMES[type(f.default)]}") from None
    least, most, choices = f.metadata["least"], f.metadata["most"], f.metadata["choices"]
    if choices and value not in choices:
        raise _wrong(given, f"expected one of {', '.join(choices)}")
    if (least is not None and value < least) or (most is not None and value > most):
        raise _wrong(given, f"expected {bounds(f)}")
    return value


def _wrong(given: Given, expected: str) -> InvalidArgument:
    return InvalidArgument(f"{given.name} = {given.text!r} (from {given.origin}): {expected}")


def bounds(f: Field[Any]) -> str:
    """What a number may be, in words; "" when it may be anything."""
    least, most = f.metadata["least"], f.metadata["most"]
    if most is not None:
        return f"{least} to {most}"
    return f"at least {least}" if least is not None else ""


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(text)
    return value


_PARSERS: dict[type, Callable[[str], Any]] = {int: int, float: _finite, str: str}
_NAMES = {int: "a whole number", float: "a number", str: "text"}


def _check_together(settings: Settings) -> None:
    server = settings.server
    if bool(server.tls_cert) != bool(server.tls_key):
        raise InvalidArgument("server.tls_cert and server.tls_key are set together or not at all")
    if server.tls_cert and server.listener == "native":
        raise InvalidArgument("server.listener = 'native' cannot serve TLS: use auto or grpc")
