"""The configuration file: YAML, ``section: {name: value}``. Read as a tree of nodes, so that every
value knows its line and a key given twice is an error."""

from collections.abc import Iterator
from pathlib import Path

import yaml

from core.errors import InvalidArgument


def read(file: Path) -> Iterator[tuple[str, str, str]]:
    """(dotted name, text, origin) of every value. Raises ``InvalidArgument`` with one line."""
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
            full = f"{section}.{name}"
            if not isinstance(value, yaml.ScalarNode) or value.tag.endswith(":null"):
                raise InvalidArgument(f"{full} must be a single value (from {origin})")
            if full in seen:
                raise InvalidArgument(f"{full} is set twice (from {origin})")
            seen.add(full)
            yield full, value.value, origin


def _entries(node: yaml.Node, file: Path, what: str) -> Iterator[tuple[str, yaml.Node, str]]:
    if not isinstance(node, yaml.MappingNode):
        raise InvalidArgument(f"configuration file {file}: line {node.start_mark.line + 1}: expected {what}")
    for key, value in node.value:
        yield key.value, value, f"{file}:{key.start_mark.line + 1}"
