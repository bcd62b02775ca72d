"""Direct calls: what a node can answer at once is asked by a thread that waits for it.

A line (``rpc.batching``) serves many who ask at the same time. For one who is alone its way there and back is longer
than a short search: through the event loops and gRPC's threads of both nodes. So each query node has a second port,
where the thread that reads a request answers it, or says no; then it is asked on the line. Nothing can be asked here
that can't be asked there, whoever gets no answer asks there, and nothing depends on this port being reached.

A connection carries one call at a time, so it needs no flow control and no numbers. A request is its length, that of
the RPC's name, the name and the message; a reply its length, whether it is an answer, and the message.
"""

import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Generic, TypeVar

import structlog
from prometheus_client import Counter

from core.errors import SheafError, StartRefused

WAIT_S = 0.1
"""How long an answer is waited for: what takes longer is asked on the line."""
CONNECT_S = 5.0
REQUEST_MAX, REPLY_MAX = 512 * 1024, 16 * 1024 * 1024
"""Bytes of a request, and of a reply: longer ones are not short work."""
LOST_S = (1.0, 30.0)
"""How long nothing is asked of a node that did not answer: the first time, doubled up to the second."""
REFUSED_MAX = 64
"""How many calls go on the line instead after a refusal: 1, 3, 7, ... up to so many, for most who are refused would
be again."""
CONNECTIONS_MAX = 256
RECEIVE_BYTES = 65_536

_LENGTH = struct.Struct("!I")
_REQUEST = struct.Struct("!IB")
_REPLY = struct.Struct("!I?")

_CALLS = Counter("sheafdb_direct_calls", "Short searches asked of another node directly", ["outcome"])
_ANSWERED, _REFUSED = _CALLS.labels("answered"), _CALLS.labels("refused")

T = TypeVar("T")
Finish = Callable[[], bytes | None]
Handler = Callable[[bytes], bytes | None]
"""A request message in, the reply message out; None when the node is to be asked on the line."""
Handlers = Callable[[], Mapping[str, Handler]]
"""Gives those of one connection, by full name of the RPC: a thread of its own calls them."""

log = structlog.get_logger()


class DirectCalls:
    """Asks one node, one call at a time. Any thread may use it."""

    def __init__(self, host: str, port: int, wait_s: float = WAIT_S) -> None:
        self.host, self.port = host, port
        self._wait_s = wait_s
        self._turn = threading.Lock()
        self._connection: socket.socket | None = None
        self._lost_s, self._lost_until = 0.0, 0.0
        self._connecting = self._closed = False

    @property
    def usable(self) -> bool:
        """Whether it makes sense to ask now."""
        return not self._turn.locked() and time.monotonic() >= self._lost_until and not self._closed

    def start(self, rpc: bytes, message: bytes) -> Finish | None:
        """Sends a call, whose answer the returned function waits for: it has to be called, by the same thread. It gives
        None, as this does, when the node is to be asked on the line."""
        request = _REQUEST.pack(1 + len(rpc) + len(message), len(rpc)) + rpc + message
        if len(request) > REQUEST_MAX or not self.usable or not self._turn.acquire(blocking=False):
            return None
        if self._connection is None:
            self._connect_soon()
        elif self._send(self._connection, request):
            return self._finish
        self._turn.release()
        return None

    def _connect_soon(self) -> None:
        """In a thread of its own: to find out where a name leads may take seconds."""
        if not self._connecting:
            self._connecting = True
            threading.Thread(target=self._connect, name="direct connection", daemon=True).start()

    def _connect(self) -> None:
        try:
            connection = socket.create_connection((self.host, self.port), CONNECT_S)
            _set_up(connection, self._wait_s)
        except OSError:
            self._leave_alone()
        else:
            with self._turn:
                self._connection = connection
                if self._closed:
                    self._drop()
        finally:
            self._connecting = False

    def _send(self, connection: socket.socket, request: bytes) -> bool:
        try:
            connection.sendall(request)
            return True
        except OSError:
            self._drop()  # it may have been lost long ago, and the node be there again
            self._connect_soon()
            return False

    def _finish(self) -> bytes | None:
        assert self._connection is not None
        try:
            body = _receive(self._connection, REPLY_MAX)
        except OSError:
            self._drop()
            self._leave_alone()
            return None
        else:
            self._lost_s = 0.0
            if self._closed:
                self._drop()
            return body[1:] if body[0] else None
        finally:
            self._turn.release()

    def _leave_alone(self) -> None:
        self._lost_s = min(max(2 * self._lost_s, LOST_S[0]), LOST_S[1])
        self._lost_until = time.monotonic() + self._lost_s

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def close(self) -> None:
        """Nothing is asked any more; a call under way still gets its answer."""
        self._closed = True
        if self._turn.acquire(blocking=False):
            self._drop()
            self._turn.release()


class Refusals:
    """Which calls of a kind are worth trying, after what became of those before. Threads may share it: a count that
    is off by one costs one call."""

    def __init__(self) -> None:
        self._pause = self._left = 0

    def worth_trying(self) -> bool:
        """Whether this one is. Ask once for each call."""
        if self._left:
            self._left -= 1
            return False
        return True

    def note(self, answered: bool) -> None:
        self._pause = 0 if answered else min(2 * self._pause + 1, REFUSED_MAX)
        self._left = self._pause


class Direct(Generic[T]):
    """One kind of request to a node, asked directly: ``rpc.newest.Prepared``, for as long as it is kept, as it holds
    nothing of a view. read: makes of a reply what it says."""

    queries_max = sys.maxsize  # the node says what is too long for it

    def __init__(self, calls: DirectCalls, rpc: str, read: Callable[[bytes], T]) -> None:
        self._calls, self._rpc, self._read = calls, rpc.encode(), read
        self._refusals = Refusals()

    def keep(self) -> None:
        """Whoever made it does."""

    @property
    def holds(self) -> bool:
        return self._calls.usable

    def ask(self, write: Callable[[], bytes]) -> Callable[[], T | None]:
        """Sends what ``write`` gives, and returns what to call for the answer: None when there is none."""
        finish = self._calls.start(self._rpc, write()) if (tried := self._refusals.worth_trying()) else None

        def answer() -> T | None:
            if not tried:
                return None
            reply = finish() if finish else None
            self._refusals.note(reply is not None)
            (_ANSWERED if reply is not None else _REFUSED).inc()
            try:
                return None if reply is None else self._read(reply)
            except Exception:
                log.exception("a direct call got an answer that can't be read")
                return None

        return answer


class DirectServer:
    """Answers direct calls from ``start`` to ``close``."""

    def __init__(self, host: str, port: int, handlers: Handlers) -> None:
        """Raises ``StartRefused`` when the port is taken."""
        self._handlers = handlers
        try:
            self._socket = socket.create_server((host, port), family=_family(host))
        except OSError as e:
            raise StartRefused(f"can't listen on {host}:{port}: {e}") from e
        self.port: int = self._socket.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._closing = False

    def start(self) -> None:
        threading.Thread(target=self._accept, name="direct calls", daemon=True).start()

    def close(self) -> None:
        """Closes the port and all connections: who waits for an answer asks on the line."""
        self._closing = True
        for each in (self._socket, *self._open):
            with suppress(OSError):  # the other end has left already
                each.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        while not self._closing:
            try:
                connection, _ = self._socket.accept()
            except OSError as e:
                if not self._closing:
                    log.warning("a direct connection was not accepted", error=str(e))
                    time.sleep(LOST_S[0])
                continue
            if len(self._open) >= CONNECTIONS_MAX:
                connection.close()
                continue
            self._open.add(connection)
            threading.Thread(target=self._serve, args=(connection,), name="direct call", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        try:
            handlers = {name.encode(): handler for name, handler in self._handlers().items()}
            _set_up(connection)
            while not self._closing:
                body = _receive(connection, REQUEST_MAX)
                first = 1 + body[0]
                reply = _answer(handlers.get(body[1:first]), body[first:])
                connection.sendall(_REPLY.pack(1 + len(reply or b""), reply is not None) + (reply or b""))
        except OSError:
            pass  # the other end has left, or does not speak this protocol
        finally:
            self._open.discard(connection)
            connection.close()


def _answer(handle: Handler | None, message: bytes) -> bytes | None:
    try:
        reply = handle(message) if handle else None
        return reply if reply is None or len(reply) < REPLY_MAX else None
    except SheafError:
        return None  # said where it is said to all
    except Exception:
        log.exception("a direct call could not be answered")
        return None


def _receive(connection: socket.socket, most: int) -> bytes:
    """The next message, of at least one byte. Raises ``OSError``."""
    received = _more(connection)
    while len(received) < _LENGTH.size:
        received += _more(connection)
    (length,) = _LENGTH.unpack_from(received)
    if not 0 < length <= most:
        raise OSError(f"a message of {length} bytes")
    parts, missing = [received[_LENGTH.size :]], length + _LENGTH.size - len(received)
    while missing > 0:
        parts.append(_more(connection))
        missing -= len(parts[-1])
    if missing:
        raise OSError("more than one message at a time")
    return b"".join(parts)


def _more(connection: socket.socket) -> bytes:
    if not (received := connection.recv(RECEIVE_BYTES)):
        raise OSError("the other end closed the connection")
    return received


def _set_up(connection: socket.socket, wait_s: float | None = None) -> None:
    """Sends at once. wait_s: how long to wait for more, by the kernel: a time-out of Python's takes a call of its own
    each time."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if wait_s is None:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    else:
        time_out = struct.pack("ll", int(wait_s), int(1e6 * (wait_s % 1)))
        for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
            connection.setsockopt(socket.SOL_SOCKET, option, time_out)


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
