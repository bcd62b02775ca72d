"""Runs one command of ``sheafdb admin``. Exit code 1: verify found something, or a store does not answer."""

import argparse
import asyncio
import os
import sys
from dataclasses import replace

from core.catalog import DEFAULT_DATABASE
from core.errors import InvalidArgument
from core.ids import Channel, NodeId
from sheafdb import logging
from sheafdb.admin import adopt, drain, move, output, statuses, survey, tables
from sheafdb.admin.access import Target, metadata, whole
from sheafdb.admin.picture import Picture, read
from sheafdb.admin.tables import Row
from sheafdb.config import from_flag, load
from storage.meta.port import MetaStore

INTERRUPTED = 130
"""As shells say it of SIGINT."""


def run(arguments: argparse.Namespace) -> int:
    """Prints the answer; the exit code. Raises ``SheafError`` saying why there is none."""
    settings = load(arguments.config, os.environ, [from_flag(text) for text in arguments.set]).settings
    if arguments.data is not None and arguments.command in ("drain", "move"):
        raise InvalidArgument("a standalone folder has no nodes to drain or move to")
    # A folder's own number of channels is in force, whatever the settings say: no warning about that.
    level = "warning" if arguments.data is None else "error"
    logging.configure(replace(settings.logging, level=level))
    target = Target(settings, arguments.data)
    if arguments.command == "verify":
        return asyncio.run(_verify(target, arguments))
    try:
        answer = asyncio.run(_adopt(target, arguments) if arguments.command == "adopt" else _answer(target, arguments))
    except KeyboardInterrupt:
        print("sheafdb: interrupted", file=sys.stderr)
        return INTERRUPTED
    if arguments.output == "json":
        print(output.as_json(answer))
    else:
        print(output.facts(answer) if isinstance(answer, dict) else output.table(answer))
    return 0


async def _verify(target: Target, arguments: argparse.Namespace) -> int:
    async with whole(target) as store:
        report = await survey.verify(store, target.settings.coordinator.orphan_grace_s, arguments.deep, _show)
    as_json = arguments.output == "json"
    print(output.as_json(output.report_row(report)) if as_json else output.report(report))
    return 1 if report.findings else 0


def _show(done: int, of: int) -> None:
    """On the terminal of whoever waits for it; nowhere else."""
    if sys.stderr.isatty():
        end = "\n" if done == of else ""
        print(f"\rread {done} of {of} bytes", end=end, file=sys.stderr, flush=True)


async def _adopt(target: Target, arguments: argparse.Namespace) -> Row:
    if arguments.source:
        return await adopt.into_cluster(target.settings, arguments.source)
    return await adopt.into_folder(target.settings, arguments.into)


async def _answer(target: Target, arguments: argparse.Namespace) -> Row | list[Row]:
    command = arguments.command
    if command == "channels":
        return await _channels(target)
    async with metadata(target) as (meta, cluster):
        if command in ("drain", "move"):
            return await (_drain if command == "drain" else _move)(meta, arguments)
        picture = await read(meta)
        if command == "status":
            return tables.status(picture, cluster)
        if command in ("nodes", "collections"):
            return tables.nodes(picture) if command == "nodes" else tables.collections(picture)
        picture = _only(picture, arguments.collection)
        if command == "segments":
            return tables.segments(picture)
        # A folder that is not running has nobody to ask.
        return tables.shards(picture, {} if target.folder else await statuses.ask(picture))


async def _drain(meta: MetaStore, arguments: argparse.Namespace) -> Row:
    node = NodeId(arguments.node)
    key = await (drain.undo(meta, node) if arguments.undo else drain.ask(meta, node))
    if not arguments.undo and arguments.wait > 0:
        await drain.until_empty(meta, key, arguments.wait)
    picture = await read(meta)
    wish = "draining" if key in picture.drains else "keeps what it has"
    return {"role": key[0], "node": key[1], "state": wish, **tables.holdings(picture, key)}


async def _move(meta: MetaStore, arguments: argparse.Namespace) -> Row:
    kind, which, node = arguments.kind, arguments.which, arguments.node
    if (node is None) is not arguments.undo:
        raise InvalidArgument("move takes either a node or --undo")
    moved = await (move.undo(meta, kind, which) if arguments.undo else move.ask(meta, kind, which, NodeId(node)))
    if node is not None and arguments.wait > 0:
        await move.until_moved(meta, moved, NodeId(node), arguments.wait)
    picture = await read(meta)
    return {kind: which, "id": str(moved.id), "pinned": moved.pin(picture), "with": moved.holders(picture)}


async def _channels(target: Target) -> list[Row]:
    async with whole(target) as store:
        numbers = [Channel(c) for c in range(store.log.channels)]
        starts = [await store.log.start(c) for c in numbers]
        return tables.channels(await read(store.meta), starts, await store.log.end(numbers))


def _only(picture: Picture, text: str | None) -> Picture:
    """The part of the picture that is about one collection. Raises ``InvalidArgument`` when there is none."""
    if text is None:
        return picture
    titles = {text, f"{DEFAULT_DATABASE}.{text}"}
    ids = {id for id in picture.collections if picture.title(id) in titles}
    if not ids:
        raise InvalidArgument(f"there is no collection {text}")
    return replace(
        picture,
        collections={id: c for id, c in picture.collections.items() if id in ids},
        manifests={s: m for s, m in picture.manifests.items() if s.collection in ids},
        placements={id: p for id, p in picture.placements.items() if id in ids},
    )
