#!/bin/sh
# Generates the stubs in this folder from proto/. `make proto` runs it; CI checks that nothing changes.
set -e
cd "$(dirname "$0")/../.."
# shellcheck disable=SC2046
${PYTHON:-python3} -m grpc_tools.protoc -Irpc/pb=proto --python_out=. --pyi_out=. \
  $(cd proto && ls -- *.proto | sed 's|^|rpc/pb/|')
