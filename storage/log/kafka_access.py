"""How a Kafka cluster is reached: addresses, TLS, login; and what is away just now, said once."""

import asyncio
import logging
import ssl
import time
from typing import Any

import structlog
from aiokafka.conn import AIOKafkaConnection, collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from core.errors import StartRefused, Unavailable
from core.ids import Channel
from core.settings import KafkaSettings

WORTH_SAYING_S = 1.0
"""How long something is away before it is logged: a leader moves in less."""
LOGIN_ERRORS = (
    AuthenticationFailedError,
    AuthenticationMethodNotSupported,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

log = structlog.get_logger()


class Again(Unavailable):
    """Not now: the broker is away or no longer leads the partition. The same request may work later."""


class LoginRefused(Again):
    """A server answers and does not let us in."""


class Access:
    """The way to one cluster, for all connections of a log."""

    def __init__(self, settings: KafkaSettings) -> None:
        """Raises ``StartRefused`` naming the setting that can't be used."""
        self.servers = settings.servers
        self.request_timeout_s = settings.request_timeout_s
        self.options = client_options(settings)
        try:
            self._hosts = [(host, port) for host, port, _ in collect_hosts(self.servers)]
        except ValueError:
            raise StartRefused(f"kafka.servers = {self.servers!r}: expected host:port, separated by commas") from None
        self._away: dict[Channel | None, float] = {}
        """Since when requests fail; None: those to no channel in particular."""
        self._said = False
        # Hundreds of lines while a broker is away. All of it reaches us as errors, too.
        logging.getLogger("aiokafka").setLevel(logging.CRITICAL)

    async def connect(self, host: str, port: int) -> AIOKafkaConnection:
        """A new connection, logged in. Raises ``KafkaError``, ``OSError``."""
        return await create_conn(host, port, **self.options)

    async def first_answer(self, request: Any) -> Any:
        """The answer of whichever of ``kafka.servers`` is first: a lost machine answers late or never.

        Raises ``Again`` saying for each why it does not answer, ``LoginRefused``."""
        asking = [asyncio.create_task(self._ask(*host, request)) for host in self._hosts]
        errors: list[Again] = []
        try:
            for answer in asyncio.as_completed(asking):
                try:
                    return await answer
                except Again as e:
                    errors.append(e)
        finally:
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
        kind = LoginRefused if any(isinstance(e, LoginRefused) for e in errors) else Again
        raise kind("; ".join(map(str, errors)))

    async def _ask(self, host: str, port: int, request: Any) -> Any:
        try:
            connection = await self.connect(host, port)
            try:
                return await connection.send(request)
            finally:
                connection.close()
        except LOGIN_ERRORS as e:
            raise LoginRefused(f"{host}:{port} refuses the login: {e}") from e
        except (KafkaError, OSError) as e:  # TimeoutError is an OSError
            raise Again(f"{host}:{port}: {str(e) or type(e).__name__}") from e

    def failed(self, channel: Channel | None, error: Exception) -> Again:
        """Notes that a request failed; what to raise."""
        why = str(error) or type(error).__name__
        now_s = time.monotonic()
        if now_s - self._away.setdefault(channel, now_s) > WORTH_SAYING_S and not self._said:
            self._said = True
            log.warning("kafka is not available, trying again", servers=self.servers, channel=channel, error=why)
        return Again(f"kafka at {self.servers} does not answer: {why}")

    def answered(self, channel: Channel | None) -> None:
        """Notes that a request succeeded."""
        since_s = self._away.pop(channel, None)
        self._away.pop(None, None)  # whoever answers about a channel answers
        if since_s is not None and not self._away and self._said:
            self._said = False
            log.info("kafka is available again", servers=self.servers, away_s=round(time.monotonic() - since_s, 1))


def client_options(settings: KafkaSettings) -> dict[str, Any]:
    """The settings in the words of aiokafka. Raises ``StartRefused``."""
    if bool(settings.tls_cert) != bool(settings.tls_key):
        raise StartRefused("kafka.tls_cert and kafka.tls_key are set together or not at all")
    tls, login = settings.tls == "yes", settings.sasl != "no"
    options: dict[str, Any] = {
        "client_id": "sheafdb",
        "request_timeout_ms": int(settings.request_timeout_s * 1000),
        "security_protocol": ("SASL_" if login else "") + ("SSL" if tls else "PLAINTEXT"),
    }
    if tls:
        options["ssl_context"] = _tls(settings)
    if login:
        if not settings.user or not settings.password:
            raise StartRefused(f"kafka.sasl = {settings.sasl} needs kafka.user and kafka.password")
        options |= {
            "sasl_mechanism": settings.sasl,
            "sasl_plain_username": settings.user,
            "sasl_plain_password": settings.password,
        }
    return options


def _tls(settings: KafkaSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca or None)
        if settings.tls_cert:
            context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except OSError as e:  # SSLError is one
        files = ", ".join(f for f in (settings.tls_ca, settings.tls_cert, settings.tls_key) if f)
        raise StartRefused(f"the TLS files of kafka cannot be used ({files}): {e}") from e
    return context
