"""A Confluent-compatible schema registry: schemas by subject and by id, over HTTP.

Source: Confluent's "Schema Registry API Reference" and "Wire format".
"""

from __future__ import annotations

import base64
import enum
import http.client
import ssl
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import orjson
from pydantic import BaseModel, ConfigDict, Field, SecretStr

from cdcsync.errors import ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cdcsync.errors import End

ANSWER_S: Final = 10.0
_TYPE: Final = "application/vnd.schemaregistry.v1+json"
_NOT_FOUND: Final = 404
_CONFLICT: Final = 409
_REFUSED: Final = frozenset({401, 403})
_SERVER: Final = 500
_BUSY: Final = 429


class Subjects(enum.StrEnum):
    """How subjects are named, as the Java serialisers' strategies."""

    TOPIC_NAME = "topic_name"
    """`TOPIC-key` and `TOPIC-value`."""
    RECORD_NAME = "record_name"
    TOPIC_RECORD_NAME = "topic_record_name"
    """`TOPIC-RECORD`: where several tables share a topic."""

    def of(self, topic: str, record: str, *, key: bool) -> str:
        """Return the subject of a schema."""
        if self is Subjects.RECORD_NAME:
            return record
        if self is Subjects.TOPIC_RECORD_NAME:
            return f"{topic}-{record}"
        return f"{topic}-{'key' if key else 'value'}"


class RegistryLogin(BaseModel):
    """Where schemas are kept, and who we are there."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(pattern=r"^https?://[^@]+$")
    """As `https://registry.example:8081`, with the path of the API where it has one."""
    username: str | None = None
    password: SecretStr | None = None
    """A reference: `${env:NAME}`, `${file:PATH}` or `${credential:NAME}`."""
    ca: Path | None = None
    """PEM file of the authorities to trust; absent: the system's."""


class RegistryConfig(RegistryLogin):
    """Where schemas are kept, and how they come there."""

    subjects: Subjects = Subjects.TOPIC_NAME
    """`topic_name`, `record_name` or `topic_record_name`: how subjects are named."""
    register_schemas: bool = True
    """Whether new schemas are registered; else they have to be there."""


class Registered(NamedTuple):
    """A schema as a registry has it."""

    text: str
    kind: str = "AVRO"
    others: Sequence[str] = ()
    """Schemas that it refers to, those that others refer to first."""


@dataclass(frozen=True, slots=True)
class Registry:
    """A client; nothing is kept open between requests."""

    config: RegistryConfig
    end: End

    @classmethod
    def of(cls, login: RegistryLogin, end: End) -> Registry:
        """Return a client that only reads."""
        return cls(RegistryConfig.model_validate(dict(login)), end)

    def by_id(self, number: int) -> Registered | None:
        """Return the schema of an id, None where there is none. Raises Transient, Fatal."""
        found = self._ask("GET", f"/schemas/ids/{number}")
        if found is None:
            return None
        others: dict[str, None] = {}
        self._refer(found, others, set())
        return Registered(str(found["schema"]), str(found.get("schemaType") or "AVRO"), tuple(others))

    def subjects(self) -> list[str]:
        """Return the names of all subjects. Raises Transient, Fatal."""
        return list(self._ask("GET", "/subjects") or ())

    def _refer(self, schema: dict[str, Any], others: dict[str, None], seen: set[str]) -> None:
        """Add the schemas that this one refers to, each behind those that it refers to itself."""
        for each in schema.get("references") or ():
            path = f"/subjects/{quote(str(each['subject']), safe='')}/versions/{int(each['version'])}"
            if path not in seen:
                seen.add(path)
                found = self._ask("GET", path) or {"schema": "null"}
                self._refer(found, others, seen)
                others[str(found["schema"])] = None

    def latest(self, subject: str) -> str | None:
        """Return the latest schema of a subject, None where it has none. Raises Transient, Fatal."""
        found = self._ask("GET", f"/subjects/{quote(subject, safe='')}/versions/latest")
        return None if found is None else str(found["schema"])

    def known(self, subject: str, schema: str) -> int | None:
        """Return the id of a schema that is a version of the subject, be it the latest or not; None where it is none."""
        found = self._ask("POST", f"/subjects/{quote(subject, safe='')}", {"schema": schema})
        return None if found is None else int(found["id"])

    def misfit(self, subject: str, schema: str) -> str:
        """Return why the registry would not take a schema, nothing where it would. Raises Transient, Fatal."""
        path = f"/compatibility/subjects/{quote(subject, safe='')}/versions/latest?verbose=true"
        found = self._ask("POST", path, {"schema": schema})
        if found is None or found.get("is_compatible", True):
            return ""
        return "; ".join(str(each) for each in found.get("messages", ()))[:500] or "it says no more"

    def register(self, subject: str, schema: str) -> int:
        """Return the id of a schema under a subject, once it is there and fits what the subject had before.

        Raises Transient, and Fatal where it does not fit or may not be registered.
        """
        body = {"schema": schema}
        misfit = self.misfit(subject, schema)
        if misfit:
            msg = f"the schema of subject {subject} does not fit its latest version: {misfit}"
            raise Fatal(msg, hint=_MISFIT.format(subject=subject), status=ExitStatus.DATA)
        if self.config.register_schemas:
            found = self._ask("POST", f"/subjects/{quote(subject, safe='')}/versions", body)
        else:
            found = self._ask("POST", f"/subjects/{quote(subject, safe='')}", body)
        if found is None:
            msg = f"the registry {self.config.url} does not have this schema of subject {subject}"
            raise Fatal(msg, hint="register it, or set `register_schemas: true`", status=ExitStatus.CONFIG)
        return int(found["id"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Return the answer, None where there is none of that name. Raises Transient, Fatal."""
        url = self.config.url.rstrip("/") + path
        request = urllib.request.Request(  # noqa: S310  the section takes http and https alone
            url, orjson.dumps(body) if body is not None else None, self._headers(), method=method
        )
        where = f"the schema registry {self.config.url}"
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_S, context=self._tls()) as answer:  # noqa: S310  as above
                return orjson.loads(answer.read())
        except urllib.error.HTTPError as error:
            if error.code == _NOT_FOUND:
                return None
            raise self._verdict(error, where) from error
        except (OSError, http.client.HTTPException, orjson.JSONDecodeError) as error:
            raise Transient(self.end, f"{where} does not answer: {error}") from error

    def _headers(self) -> dict[str, str]:
        made = {"Content-Type": _TYPE, "Accept": _TYPE}
        if self.config.username is not None:
            secret = self.config.password.get_secret_value() if self.config.password is not None else ""
            login = base64.b64encode(f"{self.config.username}:{secret}".encode()).decode()
            made["Authorization"] = f"Basic {login}"
        return made

    def _tls(self) -> ssl.SSLContext | None:
        if not self.config.url.startswith("https"):
            return None
        return ssl.create_default_context(cafile=str(self.config.ca) if self.config.ca is not None else None)

    def _verdict(self, error: urllib.error.HTTPError, where: str) -> Transient | Fatal:
        said = f"{where}: {error.code} {_message(error)}"
        if error.code >= _SERVER or error.code == _BUSY:
            return Transient(self.end, said)
        if error.code in _REFUSED:
            return Fatal(said, hint="mend `username` and `password` under `registry`", status=ExitStatus.PERMISSION)
        if error.code == _CONFLICT:
            return Fatal(said, hint=_MISFIT.format(subject="SUBJECT"), status=ExitStatus.DATA)
        return Fatal(said, hint="see the registry's log", status=ExitStatus.DATA)


_MISFIT: Final = (
    "let the change be one that the registry takes (a new column that can be null), or set the compatibility of "
    "{subject} to NONE there"
)


def _message(error: urllib.error.HTTPError) -> str:
    """Return what the registry says; its words hold no row."""
    try:
        return str(orjson.loads(error.read()).get("message", ""))[:500]
    except (orjson.JSONDecodeError, OSError, AttributeError):
        return error.reason
