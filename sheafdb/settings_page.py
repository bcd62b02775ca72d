"""Writes ``docs/settings.md`` from the dataclasses of ``core.settings``: ``make docs`` runs it."""

from sheafdb.config import bounds, declared

HEAD = """\
# Settings

Generated from `core/settings.py` by `make docs`.

Each is set by `section: {name: value}` in the file given with `--config`, by the environment variable
`SHEAFDB_<SECTION>__<NAME>`, or by `--set section.name=value`; the later in this list wins.
`sheafdb config` prints the values in force and where each came from. Bytes are bytes, names ending in
`_s` are seconds.

| setting | default | may be | what it does |
|---|---|---|---|
"""


def render() -> str:
    """The page's text."""
    lines = []
    for name, (_, f) in declared().items():
        may_be = ", ".join(f.metadata["choices"]) or bounds(f) or "any text"
        default = f"`{f.default}`" if f.default != "" else "empty"
        lines.append(f"| `{name}` | {default} | {may_be} | {f.metadata['doc']} |\n")
    return HEAD + "".join(lines)


if __name__ == "__main__":
    print(render(), end="")
