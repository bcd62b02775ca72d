"""A do-nothing server on grpc.aio and uvloop: the yardstick of a transport in Python.

Run as a process: takes the reply's bytes on standard input and answers every Search with them.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import grpc
import uvloop

from bench.clients import SEARCH


@contextmanager
def echo(reply: bytes) -> Iterator[str]:
    """The address of an echo server that answers with ``reply``."""
    process = subprocess.Popen([sys.executable, "-m", "bench.echo"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdin
    assert process.stdout
    process.stdin.write(len(reply).to_bytes(8, "little") + reply)
    process.stdin.flush()
    try:
        yield process.stdout.readline().decode().strip()
    finally:
        process.terminate()
        process.wait(10)
        process.stdin.close()
        process.stdout.close()


async def serve(reply: bytes) -> None:
    async def search(_request: bytes, _context: grpc.aio.ServicerContext) -> bytes:
        return reply

    service, _, method = SEARCH.removeprefix("/").partition("/")
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(search)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"127.0.0.1:{port}", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    size = int.from_bytes(sys.stdin.buffer.read(8), "little")
    uvloop.run(serve(sys.stdin.buffer.read(size)))
