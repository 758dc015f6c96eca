"""Connects: several hosts, TLS, keepalives, and a session whose text form of every value is ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, TypeAlias

import psycopg
from psycopg import sql

from cdcsync.addresses import TlsMode
from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.postgres.errors import describe, verdict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.postgres.config import PostgresServerConfig

Connection: TypeAlias = psycopg.Connection[tuple[Any, ...]]

FORMATS: Final[Mapping[str, str]] = {
    "TimeZone": "UTC",
    "DateStyle": "ISO",
    "IntervalStyle": "iso_8601",
    "extra_float_digits": "3",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "idle_in_transaction_session_timeout": "0",
    "client_min_messages": "warning",
}
"""In force before a value is read, by the log or by SELECT: the same value is the same text both ways."""

_REFUSALS: Final[Mapping[str, tuple[ExitStatus, str]]] = {
    "password authentication failed": (ExitStatus.PERMISSION, "check `user` and `password`"),
    "no password supplied": (ExitStatus.PERMISSION, "add `password: ${{env:PGPASSWORD}}` to the section"),
    "password is empty": (ExitStatus.PERMISSION, "the secret behind `password` is empty"),
    "authentication failed": (ExitStatus.PERMISSION, "check `user`, `password` and the server's pg_hba.conf"),
    "no pg_hba.conf entry": (
        ExitStatus.PERMISSION,
        "add to the server's pg_hba.conf, and reload it: hostssl {database} {user} ADDRESS scram-sha-256",
    ),
    "pg_hba.conf rejects": (ExitStatus.PERMISSION, "the server's pg_hba.conf rejects this user from this address"),
    "is not permitted to log in": (ExitStatus.PERMISSION, 'ALTER ROLE "{user}" LOGIN'),
    "must be superuser or replication role": (ExitStatus.PERMISSION, 'ALTER ROLE "{user}" REPLICATION'),
    "permission denied to start WAL sender": (ExitStatus.PERMISSION, 'ALTER ROLE "{user}" REPLICATION'),
    "permission denied for database": (
        ExitStatus.PERMISSION,
        'GRANT CONNECT ON DATABASE "{database}" TO "{user}"',
    ),
    'role "': (ExitStatus.PERMISSION, "check `user`: the server has no such role"),
    'database "': (ExitStatus.CONFIG, "check `database`: the server has none of that name"),
}
"""libpq gives no SQLSTATE for a connection that was refused; these parts of its text are judged in this order.

The last two count only with "does not exist". What is not recognised, as from a server that speaks another language, is
waited for, and its words are in the status: lc_messages may only be set by a superuser.
"""

_TLS_REFUSALS: Final = (
    ("server does not support SSL", "tls: {mode: disable}"),
    ("root certificate file", "tls: {mode: verify-full, ca: /path/to/ca.pem}"),
    ("certificate verify failed", "tls: {mode: verify-full, ca: /path/to/ca.pem}"),
    ("self-signed certificate", "tls: {mode: verify-full, ca: /path/to/ca.pem}"),
    ("does not match host name", "tls: {mode: verify-ca, ca: /path/to/ca.pem}"),
    ("certificate file", "tls: {cert: /path/to/client.crt, key: /path/to/client.key}"),
    ("private key file", "tls: {cert: /path/to/client.crt, key: /path/to/client.key}"),
    ("requires a valid client certificate", "tls: {cert: /path/to/client.crt, key: /path/to/client.key}"),
)


def connect(
    config: PostgresServerConfig,
    *,
    application_name: str,
    end: End = End.SOURCE,
    replication: bool = False,
    read_write: bool = False,
) -> Connection:
    """Return a connection in autocommit mode with `FORMATS` and the section's own settings in force.

    `replication` speaks the replication protocol (and simple queries) in the database. `read_write` takes the
    first host that is a primary. Raises Transient when no host answers, else Fatal, with the line to add.
    """
    options: dict[str, Any] = {"replication": "database"} if replication else {}
    if read_write:
        options["target_session_attrs"] = "read-write"
    try:
        connection = psycopg.connect(
            autocommit=True, application_name=application_name, **options, **parameters(config)
        )
    except psycopg.Error as error:
        raise refusal(error, config, end) from error
    try:
        connection.execute(_settings({**FORMATS, **config.session()}))
        connection.prepare_threshold = None if replication else 5
    except psycopg.Error as error:
        connection.close()
        raise verdict(error, end, f"connecting to {config.where}") from error
    return connection


def parameters(config: PostgresServerConfig) -> dict[str, Any]:
    """Return libpq's keywords for the section."""
    addresses = config.addresses
    options: dict[str, Any] = {
        "host": ",".join(address.name for address in addresses),
        "port": ",".join(str(address.port) for address in addresses),
        "user": config.user,
        "dbname": config.database,
        "sslmode": config.tls_mode.value,
        "connect_timeout": config.connect_timeout_s,
        "client_encoding": "UTF8",
        "keepalives": 1,
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 60_000,
    }
    if config.password is not None:
        options["password"] = config.password.get_secret_value()
    if config.tls.ca is not None:
        options["sslrootcert"] = str(config.tls.ca)
    elif config.tls_mode is TlsMode.VERIFY_FULL:
        options["sslrootcert"] = "system"
    if config.tls.cert is not None:
        options["sslcert"], options["sslkey"] = str(config.tls.cert), str(config.tls.key)
    return options


def refusal(error: psycopg.Error, config: PostgresServerConfig, end: End) -> Transient | Fatal:
    """Judge a connection that did not come about."""
    text = describe(error)
    message = f"connecting to {config.where}: {text}"
    for part, line in _TLS_REFUSALS:
        if part in text:
            hint = f"TLS mode {config.tls_mode.value} refused it; add to the section: {line}"
            return Fatal(message, hint=hint, status=ExitStatus.PERMISSION)
    for part, (status, hint) in _REFUSALS.items():
        if part in text and (not part.endswith(' "') or "does not exist" in text):
            return Fatal(message, hint=hint.format(user=config.user, database=config.database), status=status)
    return Transient(end, message)


def _settings(settings: Mapping[str, str]) -> sql.Composed:
    """Return one simple query: the replication protocol takes no other."""
    return sql.SQL("; ").join(
        sql.SQL("SET {} = {}").format(sql.Identifier(name), sql.Literal(value)) for name, value in settings.items()
    )
