"""Which columns a read fetches and returns."""

from collections.abc import Sequence
from dataclasses import dataclass

from core.errors import InvalidArgument
from core.schema import DYNAMIC, Field, Schema


@dataclass(frozen=True, slots=True)
class Output:
    """fetch: columns to ask the shards for (never the primary key, which always comes).
    fields: columns of the reply, in order. names: what the reply says was asked for; clients take
    names without a column as keys of the dynamic field."""

    fetch: tuple[str, ...]
    fields: tuple[Field, ...]
    names: tuple[str, ...]


def resolve(asked: Sequence[str], schema: Schema, *, with_primary: bool) -> Output:
    """Raises ``InvalidArgument`` for a name that is neither a field nor, with a dynamic field, a key."""
    names: dict[str, None] = {}
    for name in asked:
        if name == "*":
            names.update(dict.fromkeys(schema.by_name))
        elif name not in schema.by_name and not (schema.dynamic and name.isprintable() and name):
            raise InvalidArgument(f"field {name} not exist")
        else:
            names[name] = None
    if "*" in asked:
        # All of the dynamic field is wanted: naming keys of it would make clients cut it down.
        names = {n: None for n in names if n in schema.by_name}
    columns = {n: None for n in names if n in schema.by_name}
    if len(columns) < len(names):
        columns[DYNAMIC] = None
    primary = schema.primary.name
    if with_primary and primary not in columns:
        columns = {primary: None, **columns}
        names = {primary: None, **names}
    fields = tuple(schema.by_name[n] for n in columns)
    return Output(tuple(n for n in columns if n != primary), fields, tuple(names))
