"""TCP ports that cannot be had: one clear line, whoever asked."""

import os
import socket

from core.errors import StartRefused


def check_free(host: str, port: int, setting: str, *, reuse_port: bool = False) -> None:
    """Raises ``StartRefused`` when nobody could listen there now. ``setting``: what to change. reuse_port:
    beside others that allow it too."""
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address[:2], family=family, reuse_port=reuse_port).close()
    except OSError as e:
        raise refused(host, port, setting, e) from e


def refused(host: str, port: int, setting: str, error: OSError) -> StartRefused:
    """The error for a port that cannot be bound."""
    # Name look-ups have negative numbers and words of their own; the rest comes wrapped into sentences.
    number = error.errno or 0
    reason = os.strerror(number) if number > 0 else error.strerror or str(error)
    return StartRefused(f"cannot listen on {host}:{port}: {reason} (settings server.host and {setting})")
