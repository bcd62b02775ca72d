"""Tables for people, JSON for programs."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from sheafdb.admin.survey import Report
from sheafdb.admin.tables import Row


def as_json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_INDENT_2).decode()


def table(rows: Sequence[Row]) -> str:
    """Aligned columns under their names, numbers to the right; "(none)" without rows."""
    if not rows:
        return "(none)"
    names = list(rows[0])
    lines = [names, *([_cell(row[name]) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    right = [all(isinstance(row[name], int | None) for row in rows) for name in names]
    return "\n".join(
        "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in lines
    )


def facts(row: Row) -> str:
    """One name and value per line."""
    width = max(map(len, row))
    return "\n".join(f"{name:{width}}  {_cell(value)}".rstrip() for name, value in row.items())


def report(found: Report) -> str:
    """What was looked at, then each finding with what it costs."""
    digests = "and their digests" if found.deep else "digests not compared: --deep does"
    lines = [
        f"looked at {found.manifests} manifests, {found.objects} objects of {found.bytes} bytes ({digests}),"
        f" {found.channels} channels, {found.positions} positions of the log"
    ]
    for finding in found.findings:
        lines += [
            "",
            f"{finding.harm}: {finding.what}: {finding.subject}",
            f"  {finding.detail}",
            f"  costs: {finding.cost}",
        ]
    count = len(found.findings)
    lines += ["", f"{count} finding{'' if count == 1 else 's'}" if count else "nothing is wrong"]
    return "\n".join(lines)


def report_row(found: Report) -> Row:
    """The report as JSON has it."""
    return asdict(found)


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {of}" for name, of in value.items()) or "-"
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"
    return str(value) or "-"
