"""``make chaos``: faults under load for a given time, on a cluster of this machine; the verdict at the end.

Exit code: 0 = right; 1 = something was wrong: the processes' logs and the history of the last round are then left
in the folder that is named.
"""

import argparse
import asyncio
import shutil
import sys
import tempfile
from pathlib import Path
from random import SystemRandom

from core.settings import LogOutputSettings
from sheafdb import logging
from sheafdb.cluster import Size
from sheafdb.servers import install
from tests.chaos.run import all_faults, run

SIZE = Size(proxy=2, querynode=3, datanode=2, indexnode=1, coordinator=2)


def main() -> int:
    faults = all_faults()
    parser = argparse.ArgumentParser("python -m tests.chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3600.0)
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32), help="of faults and clients")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--folder", type=Path, help="kept afterwards; default: a new one, kept if something is wrong")
    parser.add_argument("--faults", default=",".join(f.name for f in faults), help="names, name,name,...; default: all")
    arguments = parser.parse_args()
    wanted = arguments.faults.split(",")
    if unknown := set(wanted) - {f.name for f in faults}:
        parser.error(f"no such fault: {', '.join(sorted(unknown))}")
    logging.configure(LogOutputSettings(level="warning"))
    install(("kafka", "etcd", "minio", "toxiproxy"), _say)
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="sheafdb-chaos-"))
    _say(f"seed {arguments.seed}; logs and data are in {folder}")
    right = False
    try:
        verdict = asyncio.run(
            run(
                folder,
                seed=arguments.seed,
                seconds=arguments.seconds,
                size=SIZE,
                clients=arguments.clients,
                faults=[f for f in faults if f.name in wanted],
                say=_say,
            )
        )
        print(verdict)
        right = verdict.right
    finally:
        if right and not arguments.folder:
            shutil.rmtree(folder)
        else:
            _say(f"logs, data and the history of a wrong round are in {folder}")
    return 0 if right else 1


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
