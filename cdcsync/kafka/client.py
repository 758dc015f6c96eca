"""How every client of Kafka reaches its brokers: addresses, TLS, SASL, and librdkafka's settings by their own names."""

from __future__ import annotations

import enum
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from cdcsync.addresses import Host, Tls, TlsMode, parse_host
from cdcsync.errors import ExitStatus, Fatal

PORT: Final = 9092

SECRETS: Final = frozenset(
    {
        "sasl.oauthbearer.client.secret",
        "sasl.password",
        "ssl.key.password",
        "ssl.key.pem",
        "ssl.keystore.password",
        "sasl.oauthbearer.assertion.private.key.passphrase",
        "sasl.oauthbearer.assertion.private.key.pem",
        "sasl.oauthbearer.config",
    }
)
"""librdkafka's settings that hold a secret."""

REFUSED: Final = {
    "bootstrap.servers": "name the brokers under `brokers`",
    "metadata.broker.list": "name the brokers under `brokers`",
    "acks": "a record counts only when all replicas in step have it: always `all`",
    "request.required.acks": "a record counts only when all replicas in step have it: always `all`",
    "enable.idempotence": "without it a retry can write a record twice or out of order: always on",
    "enable.gapless.guarantee": "a failed record is told by its own topic and offset: always off",
    "transactional.id": "it is made of the pipeline and its lane, so that an older daemon is fenced",
    "max.in.flight": "order per key holds up to 5 with idempotence, which the client sees to",
    "max.in.flight.requests.per.connection": "order per key holds up to 5 with idempotence, which the client sees to",
    "message.send.max.retries": "a record is tried again until its time is over: bound that, by message.timeout.ms",
    "retries": "a record is tried again until its time is over: bound that, by message.timeout.ms",
    "partitioner": "a key's partition is the same as the Java clients': name it under `partitioner`",
    "enable.auto.commit": "offsets are stored when the sink has the changes, never before",
    "auto.commit.interval.ms": "offsets are stored when the sink has the changes, never before",
    "enable.auto.offset.store": "offsets are stored when the sink has the changes, never before",
    "auto.offset.reset": "a gap in the log stops the pipeline; name where to begin under `start`",
    "topic.auto.offset.reset": "a gap in the log stops the pipeline; name where to begin under `start`",
    "isolation.level": "what was not committed is never read; only `read_committed`",
    "group.id": "name it under `group`",
    "enable.partition.eof": "the source needs it itself",
    "allow.auto.create.topics": "topics are made by this section's own settings, or by nobody",
    "plugin.library.paths": "a plugin can change or drop records",
}
"""librdkafka's settings that would break the promise, or have a name here, with the reason."""

Setting = bool | int | float | str | SecretStr


class Mechanism(enum.StrEnum):
    """How a user logs in."""

    PLAIN = "PLAIN"
    SCRAM_256 = "SCRAM-SHA-256"
    SCRAM_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"


class Sasl(BaseModel):
    """Who we are at the brokers."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mechanism: Mechanism = Mechanism.SCRAM_512
    username: str | None = None
    password: SecretStr | None = None
    """A reference: `${env:NAME}`, `${file:PATH}` or `${credential:NAME}`."""
    token_url: str | None = None
    """OAUTHBEARER: where a token is got for `client_id` and `client_secret` (OpenID Connect)."""
    client_id: str | None = None
    client_secret: SecretStr | None = None
    scope: str | None = None

    @model_validator(mode="after")
    def _whole(self) -> Sasl:
        if self.mechanism is Mechanism.OAUTHBEARER:
            if self.username is not None or self.password is not None:
                msg = "OAUTHBEARER takes `token_url`, `client_id` and `client_secret`, or settings under `client`"
                raise ValueError(msg)
            if (self.token_url is None) != (self.client_id is None):
                msg = "`token_url` and `client_id` go together"
                raise ValueError(msg)
        elif self.username is None or self.password is None:
            msg = f"{self.mechanism} needs `username` and `password`"
            raise ValueError(msg)
        return self

    def settings(self) -> dict[str, Setting]:
        """Return librdkafka's."""
        made: dict[str, Setting | None] = {"sasl.mechanism": self.mechanism.value}
        if self.mechanism is not Mechanism.OAUTHBEARER:
            made |= {"sasl.username": self.username, "sasl.password": self.password}
        elif self.token_url is not None:
            made |= {
                "sasl.oauthbearer.method": "oidc",
                "sasl.oauthbearer.token.endpoint.url": self.token_url,
                "sasl.oauthbearer.client.id": self.client_id,
                "sasl.oauthbearer.client.secret": self.client_secret,
                "sasl.oauthbearer.scope": self.scope,
            }
        return {name: value for name, value in made.items() if value is not None}


class KafkaClientConfig(BaseModel):
    """Where the brokers are and who we are there; what source, sink and store share."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    brokers: tuple[str, ...] = Field(min_length=1)
    """`host` or `host:port`; some of the cluster's, the others are learnt from them."""
    tls: Tls = Tls()
    """Absent: verify-full; without TLS where every broker is on this machine. Kafka has no `prefer`."""
    sasl: Sasl | None = None
    """Absent: no login, or the certificate under `tls` alone."""
    client: dict[str, Setting] = Field(default_factory=dict)
    """Settings of librdkafka by their own names, `linger.ms: 5`; they win over what cdcsync sets, except those that
    would break the promise, which are refused."""

    @field_validator("brokers")
    @classmethod
    def _hosts(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            parse_host(text, PORT)
        return value

    @field_validator("tls")
    @classmethod
    def _mode(cls, value: Tls) -> Tls:
        if value.mode is TlsMode.PREFER:
            msg = "a Kafka broker cannot be asked whether it speaks TLS: `mode` is disable, require, verify-ca or verify-full"
            raise ValueError(msg)
        return value

    @field_validator("client")
    @classmethod
    def _settings(cls, value: dict[str, Setting]) -> dict[str, Setting]:
        for name in value:
            if name in REFUSED:
                msg = f"{name} is not taken: {REFUSED[name]}"
                raise ValueError(msg)
        return {name: SecretStr(_text(each)) if name in SECRETS else each for name, each in value.items()}

    @property
    def addresses(self) -> list[Host]:
        """All brokers that are named."""
        return [parse_host(text, PORT) for text in self.brokers]

    @property
    def where(self) -> str:
        """For messages: the brokers, without a secret."""
        return ",".join(map(str, self.addresses))

    @property
    def tls_mode(self) -> TlsMode:
        """The mode in force."""
        if self.tls.mode is not None:
            return self.tls.mode
        local = all(host.is_local for host in self.addresses) and self.tls == Tls()
        return TlsMode.DISABLE if local else TlsMode.VERIFY_FULL

    def settings(self, client_id: str) -> dict[str, Any]:
        """Return librdkafka's settings for a client of that name, secrets in the clear: for its constructor alone."""
        encrypted = self.tls_mode is not TlsMode.DISABLE
        protocol = ("SASL_" if self.sasl else "") + ("SSL" if encrypted else "PLAINTEXT")
        made: dict[str, Setting] = {
            "bootstrap.servers": self.where,
            "client.id": client_id,
            "security.protocol": protocol,
            "allow.auto.create.topics": False,
            "reconnect.backoff.max.ms": 2000,
            "topic.metadata.refresh.interval.ms": 60_000,
        }
        if encrypted:
            made |= self._tls()
        if self.sasl is not None:
            made |= self.sasl.settings()
        made |= self.client
        return {name: _plain(value) for name, value in made.items()}

    def _tls(self) -> dict[str, Setting]:
        mode = self.tls_mode
        files = {
            "ssl.ca.location": self.tls.ca,
            "ssl.certificate.location": self.tls.cert,
            "ssl.key.location": self.tls.key,
        }
        made: dict[str, Setting] = {name: str(path) for name, path in files.items() if path is not None}
        made["ssl.endpoint.identification.algorithm"] = "https" if mode is TlsMode.VERIFY_FULL else "none"
        made["enable.ssl.certificate.verification"] = mode is not TlsMode.REQUIRE
        return made


def _text(value: Setting) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else str(value)


def _plain(value: Setting) -> Any:
    """Return a value as librdkafka takes it."""
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def from_url(url: str) -> dict[str, Any]:
    """Return what the section holds for `kafka://user:password@host:port,host:port/TOPIC?options`.

    Options are librdkafka's, and `tls` (a mode), `ca`, `cert`, `key`, `mechanism`. Raises Fatal with CONFIG.
    """
    parts = urlsplit(url)
    credentials, _, hosts = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    section: dict[str, Any] = {"brokers": [unquote(name) for name in hosts.split(",") if name] or ["localhost"]}
    sasl: dict[str, str] = {"username": unquote(user), "password": unquote(password)} if user else {}
    tls: dict[str, str] = {}
    client: dict[str, str] = {}
    for key, value in parse_qsl(parts.query):
        if key in {"ca", "cert", "key"}:
            tls[key] = value
        elif key == "tls":
            tls["mode"] = value
        elif key == "mechanism":
            sasl[key] = value
        elif "." in key or key == "debug":
            client[key] = value
        elif key in _URL_OPTIONS:
            section[key] = value
        else:
            msg = f"a kafka URL has no option {key!r}"
            hint = f"there are tls, ca, cert, key, mechanism, {', '.join(sorted(_URL_OPTIONS))}, and librdkafka's own"
            raise Fatal(msg, hint=hint, status=ExitStatus.CONFIG)
    named = {"sasl": sasl, "tls": tls, "client": client, "topic": unquote(parts.path[1:])}
    return section | {name: value for name, value in named.items() if value}


_URL_OPTIONS: Final = {"delivery", "format", "group", "start"}
