#!/bin/sh
# Fails when a generated file in the tree is not what its source gives today. Changes nothing.
set -e
PYTHON=$(command -v "${PYTHON:-python3}")
case $PYTHON in /*) ;; *) PYTHON=$PWD/$PYTHON ;; esac
export PYTHON
cd "$(dirname "$0")/.."
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT

# The generator writes below the folder it is run in, so it is run on a copy.
cp -r proto "$fresh/proto"
mkdir -p "$fresh/rpc"
cp -r rpc/pb "$fresh/rpc/pb"
(cd "$fresh" && sh rpc/pb/generate.sh)
diff -r -x __pycache__ rpc/pb "$fresh/rpc/pb" || { echo "rpc/pb is not what proto/ gives: run make proto"; exit 1; }

"$PYTHON" -m sheafdb.settings_page > "$fresh/settings.md"
diff docs/settings.md "$fresh/settings.md" || { echo "docs/settings.md is old: run make docs"; exit 1; }
echo "generated files are current"
