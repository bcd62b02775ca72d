#!/bin/sh
# Generates the stubs in this folder from proto/. `make proto` runs it; CI checks that nothing changes.
set -e
cd "$(dirname "$0")/../.."
${PYTHON:-python3} -m grpc_tools.protoc -Irpc/pb=proto --python_out=. --pyi_out=. rpc/pb/record.proto rpc/pb/catalog.proto rpc/pb/manifest.proto
