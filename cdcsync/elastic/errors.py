"""From what a cluster answers, and what its client raises, to verdicts, as tables."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from elastic_transport import ConnectionError as NoConnection
from elastic_transport import ConnectionTimeout, TlsError, TransportError

from cdcsync.errors import End, ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Mapping


class Verdict(enum.Enum):
    """What an error means to a pipeline."""

    LATER = "later"
    """The server is busy: the same again, less of it at once."""
    TRANSIENT = "transient"
    CONFLICT = "conflict"
    """A newer version is there: to be judged by its epoch."""
    TOO_LARGE = "too large"
    """The request, not yet its documents."""
    ROW = "row"
    """The document will never be taken as it is."""
    CONFIG = "config"
    PERMISSION = "permission"
    DATA = "data"


@dataclass(frozen=True, slots=True)
class Rule:
    """A verdict, and what to do where a person has to."""

    verdict: Verdict
    hint: str = ""


_LATER: Final = Rule(Verdict.LATER)
_TRANSIENT: Final = Rule(Verdict.TRANSIENT)
_GONE: Final = Rule(
    Verdict.DATA,
    "its documents are lost: bring it back; or forget the position with `cdcsync positions clear`, delete the other "
    "indexes of the pipeline, and run again to copy everything",
)
_NAME: Final = Rule(
    Verdict.CONFIG, 'give the target another name with `to:`: lower case, without \\ / * ? " < > | # : , or spaces'
)

RULES: Final[Mapping[str, Rule]] = {
    "es_rejected_execution_exception": _LATER,
    "rejected_execution_exception": _LATER,
    "circuit_breaking_exception": _LATER,
    "unavailable_shards_exception": _TRANSIENT,
    "no_shard_available_action_exception": _TRANSIENT,
    "process_cluster_event_timeout_exception": _TRANSIENT,
    "master_not_discovered_exception": _TRANSIENT,
    "node_not_connected_exception": _TRANSIENT,
    "node_closed_exception": _TRANSIENT,
    "node_disconnected_exception": _TRANSIENT,
    "primary_missing_action_exception": _TRANSIENT,
    "shard_not_in_primary_mode_exception": _TRANSIENT,
    "search_phase_execution_exception": _TRANSIENT,
    "alreadyclosed_exception": _TRANSIENT,
    "timeout_exception": _TRANSIENT,
    "cluster_block_exception": _TRANSIENT,
    "version_conflict_engine_exception": Rule(Verdict.CONFLICT),
    "document_parsing_exception": Rule(Verdict.ROW),
    "mapper_parsing_exception": Rule(Verdict.ROW),
    "strict_dynamic_mapping_exception": Rule(Verdict.ROW),
    "routing_missing_exception": Rule(
        Verdict.CONFIG, "the index wants a routing: name the column under `indexes: {NAME: {routing: ..}}`"
    ),
    "index_not_found_exception": _GONE,
    "index_closed_exception": Rule(Verdict.CONFIG, "open the index: POST /NAME/_open"),
    "invalid_index_name_exception": _NAME,
    "invalid_alias_name_exception": _NAME,
    "security_exception": Rule(Verdict.PERMISSION, "give this user or API key the rights that the guide lists"),
    "content_too_long_exception": Rule(Verdict.TOO_LARGE),
}
"""By the type of an error. What is not here goes by the status of its answer."""

STATUSES: Final[Mapping[int, Rule]] = {
    400: Rule(Verdict.ROW),
    401: Rule(Verdict.PERMISSION, "check `api_key`, `token`, or `user` and `password`"),
    403: Rule(Verdict.PERMISSION, "give this user or API key the rights that the guide lists"),
    404: _GONE,
    408: _TRANSIENT,
    409: Rule(Verdict.CONFLICT),
    413: Rule(Verdict.TOO_LARGE),
    429: _LATER,
    502: _TRANSIENT,
    503: _LATER,
    504: _TRANSIENT,
}
_BROKEN: Final = _TRANSIENT
"""Any other 5xx."""
_UNKNOWN: Final = Rule(Verdict.DATA, "this answer is not known to cdcsync: the server's log says more")
_STATUS: Final = {Verdict.PERMISSION: ExitStatus.PERMISSION, Verdict.CONFIG: ExitStatus.CONFIG}

_SERVER_ERROR: Final = 500
_IN_DOCUMENT: Final = re.compile(r" in document with id '.*?'(?=\. Preview|$)", re.DOTALL)
_PREVIEW: Final = re.compile(r"\.? ?Preview of field's value: .*", re.DOTALL)
_AT: Final = re.compile(r"\s*(?:at )?\[Source: .*", re.DOTALL)
_PLACE: Final = re.compile(r"^(?:\[-?\d+:-?\d+\] )")
_QUOTED: Final = re.compile(r"'[^']*'|\"[^\"]*\"|\[[^\]]*\]|\(-?\d[^)]*\)")
_WORDS: Final = re.compile(r"[\[\]'\"]*([A-Z_]{3,}|[a-z_]{2,24})[\[\]'\"]*")
_DIGITS: Final = re.compile(r"\d{2,}")


def rule_of(status: int, kind: str) -> Rule:
    """Return the table's row for an answer's status and its error's type."""
    found = RULES.get(kind) or STATUSES.get(status)
    if found is None:
        return _BROKEN if status >= _SERVER_ERROR else _UNKNOWN
    return found


def error_of(answer: Any) -> tuple[str, str]:
    """Return type and reason of the error that an answer, or an item of one, carries."""
    error = answer.get("error", answer) if isinstance(answer, dict) else answer
    if not isinstance(error, dict):
        return "", str(error)
    return str(error.get("type", "")), str(error.get("reason", ""))


def why(error: Mapping[str, Any]) -> str:
    """Return the server's reason for a document that it refuses, without a value of the row."""
    reason = _PREVIEW.sub("", str(error.get("reason", "")))
    reason = _PLACE.sub("", _IN_DOCUMENT.sub("", _AT.sub("", reason)))
    cause = error.get("caused_by")
    text = f"{error.get('type', 'refused')}: {_named(reason)}"
    if isinstance(cause, dict):
        text = f"{text}: {_scrubbed(_AT.sub('', str(cause.get('reason', ''))))}"
    return " ".join(text.split())


def _named(reason: str) -> str:
    """Leave the names of field and type in place: they are the mapping's."""
    head, mark, tail = reason.partition(" of type [")
    if mark and head.startswith("failed to parse field ["):
        return f"{head}{mark}{tail.partition(']')[0]}]"
    if reason.startswith("mapping set to strict"):
        return reason
    return _scrubbed(reason)


def _scrubbed(reason: str) -> str:
    """Take out whatever is quoted or bracketed, unless it is a word of the server's own, and all longer numbers."""

    def replace(found: re.Match[str]) -> str:
        inner = found[0][1:-1]
        return found[0] if inner in _OWN or (inner.isupper() and "_" in inner) else "[..]"

    return _DIGITS.sub("..", _QUOTED.sub(replace, reason))


_OWN: Final = {
    "double", "float", "long", "integer", "short", "byte", "keyword", "text", "date", "date_nanos", "flattened",
    "boolean", "binary", "geo_point", "geo_shape", "strict_date_optional_time||epoch_millis",
}  # fmt: skip


def verdict(status: int, answer: Any, end: End, doing: str) -> Transient | Fatal:
    """Return what to raise when a whole request was refused."""
    kind, reason = error_of(answer)
    rule = rule_of(status, kind)
    message = f"{doing}: {reason or kind or 'no reason given'} (HTTP {status})"
    if rule.verdict in {Verdict.LATER, Verdict.TRANSIENT}:
        return Transient(end, blocked(reason) or message)
    hint = rule.hint or "run `cdcsync check`: it says what the cluster lacks"
    return Fatal(message, hint=hint, status=_STATUS.get(rule.verdict, ExitStatus.DATA))


def blocked(reason: str) -> str:
    """Return a clear word for an index that takes no writes; empty for any other reason."""
    if "blocked by" not in reason:
        return ""
    if "flood" in reason or "read-only-allow-delete" in reason or "read-only / allow delete" in reason:
        return f"the disk of the cluster is full, and the index read-only until there is room: {reason}"
    return f"the index takes no writes until its block is lifted: {reason}"


def lost(error: TransportError, end: End, doing: str, where: str) -> Transient | Fatal:
    """Return what to raise when no answer came."""
    if isinstance(error, TlsError):
        return Fatal(
            f"{doing}: TLS with {where} failed: {error.message}",
            hint="name the authority that signed the server's certificate: `tls: {ca: /path/ca.pem}`; "
            "only to try something out, `tls: {mode: require}` does not verify",
            status=ExitStatus.CONFIG,
        )
    if isinstance(error, ConnectionTimeout):
        return Transient(end, f"{doing}: {where} did not answer in time")
    if isinstance(error, NoConnection):
        return Transient(end, f"{doing}: {where} cannot be reached: {error.message}")
    return Transient(end, f"{doing}: {where}: {type(error).__name__}")
