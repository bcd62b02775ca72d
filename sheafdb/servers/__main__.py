"""``python -m sheafdb.servers [NAME...]``: installs the servers (all of them by default), says where."""

import argparse
import sys

from core.errors import SheafError
from sheafdb.servers.install import folder_of, install
from sheafdb.servers.progress import shown
from sheafdb.servers.recipes import RECIPES


def main() -> int:
    parser = argparse.ArgumentParser("python -m sheafdb.servers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)} (default: all)")
    names = parser.parse_args().names or list(RECIPES)
    try:
        with shown() as say:
            install(names, say)
    except SheafError as e:
        print(f"sheafdb: {e}", file=sys.stderr)
        return 3
    for name in names:
        print(f"{name:10} {folder_of(name)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
