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
        """(dotted name, value, origin) of every setting, in the order of ``core.settings``; secrets as ***."""
        return [
            (name, _shown(f, getattr(getattr(self.settings, section), f.name)), self.origins[name])
            for name, (section, f) in declared().items()
        ]


def _shown(f: Field[Any], value: Any) -> Any:
    return "***" if f.metadata["secret"] and value else value


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
    for given in (*_from_file(file), *_from_environment(environ), *flags):
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


def _from_file(file: Path | None) -> Iterable[Given]:
    if file is None:
        return ()
    from sheafdb.config_file import read  # noqa: PLC0415  # needs a YAML parser, most servers have no file

    return (Given(*entry) for entry in read(file))


def _from_environment(environ: Mapping[str, str]) -> Iterator[Given]:
    for variable, value in sorted(environ.items()):
        # Only names with a double underscore are ours: Kubernetes sets SHEAFDB_PORT=tcp://... for a Service.
        if variable.startswith(PREFIX) and "__" in variable:
            section, _, name = variable.removeprefix(PREFIX).lower().partition("__")
            yield Given(f"{section}.{name}", value, f"environment {variable}")


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
