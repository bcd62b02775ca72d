"""The command line of ``sheafdb admin``. Says what there is; what it needs is imported when it runs."""

import argparse
from pathlib import Path
from typing import Any

COMMANDS = {
    "status": "the cluster in a few numbers",
    "nodes": "who is there, and what each has",
    "collections": "what is stored",
    "shards": "manifests, leaders and how far they are, one line per replica",
    "segments": "sealed segments",
    "channels": "the log: owners, checkpoints, ends",
    "adopt": "copy a standalone folder into a new cluster, or a cluster into a new folder",
    "move": "have a named node lead a shard, or own a channel",
    "drain": "have others take over what a data node or query node has",
    "verify": "compare manifests, objects and log, and say what is wrong and what it costs",
}


def add_to(commands: Any) -> None:
    """Adds ``admin`` and its commands to those of ``sheafdb`` (what ``add_subparsers`` gave)."""
    admin = commands.add_parser("admin", help="look into a cluster or a folder, drain nodes, move shards, verify")
    of = admin.add_subparsers(required=True, metavar="COMMAND", dest="command")
    where = argparse.ArgumentParser(add_help=False)
    where.add_argument("--config", type=Path, metavar="FILE", help="YAML file with the settings of a cluster's nodes")
    where.add_argument("--set", action="append", default=[], metavar="SECTION.NAME=VALUE", help="one setting")
    where.add_argument("--output", choices=("table", "json"), default="table")
    folder = argparse.ArgumentParser(add_help=False)
    folder.add_argument("--data", type=Path, metavar="DIR", help="a standalone folder instead, that is not running")
    parsers = {
        name: of.add_parser(name, parents=[where] if name == "adopt" else [where, folder], help=text)
        for name, text in COMMANDS.items()
    }
    for name in ("shards", "segments"):
        parsers[name].add_argument("--collection", metavar="[DATABASE.]NAME", help="only this one")
    parsers["adopt"].set_defaults(data=None)
    way = parsers["adopt"].add_mutually_exclusive_group(required=True)
    way.add_argument("--from", type=Path, metavar="DIR", dest="source", help="folder to copy into the cluster")
    way.add_argument("--into", type=Path, metavar="DIR", help="folder to make from the cluster")
    drain = parsers["drain"]
    drain.add_argument("node", metavar="NODE", help="id of the node")
    drain.add_argument("--undo", action="store_true", help="take the wish back")
    drain.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="until it has nothing; at most this")
    move = parsers["move"]
    move.add_argument("kind", choices=("shard", "channel"))
    move.add_argument("which", metavar="WHICH", help="[DATABASE.]COLLECTION/NUMBER of a shard, number of a channel")
    move.add_argument(
        "node", metavar="NODE", nargs="?", help="query node to lead the shard, data node to own the channel"
    )
    move.add_argument("--undo", action="store_true", help="let the coordinator decide again")
    move.add_argument("--wait", type=float, default=0.0, metavar="SECONDS", help="until it is there; at most this")
    parsers["verify"].add_argument("--deep", action="store_true", help="read every object and compare its digest")
    admin.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    from sheafdb.admin import commands  # noqa: PLC0415  # after the arguments are known to be right

    return commands.run(arguments)
