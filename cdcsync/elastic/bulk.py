"""One bulk request: sent, every item of its answer read, and what the server could not take now sent again."""

from __future__ import annotations

import re
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import orjson

from cdcsync.change import PLACE_BITS
from cdcsync.elastic.client import OK
from cdcsync.elastic.errors import Verdict, blocked, error_of, rule_of, verdict, why
from cdcsync.errors import End, ExitStatus, Fatal, Transient

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cdcsync.elastic.addressed import Action, Cause
    from cdcsync.elastic.client import Client
    from cdcsync.elastic.target import Index
    from cdcsync.folding import Ref

PATIENCE_S: Final = 10.0
"""How long a busy server is asked again within one write; past it the sink is unready, and says so."""
WAIT_S: Final = 0.05
"""After the first refusal; doubled by each that follows."""
WAIT_MAX_S: Final = 2.0
SHARD_WAIT: Final = "10s"
"""How long the server itself waits for a shard that is away."""
FILTER: Final = "filter_path=errors,items.*._index,items.*.status,items.*.error"
"""What is wanted of an answer; the rest would be four fifths of it."""
_NO_ERRORS: Final = b'"errors":false'
_ITEMS: Final = b'"items":['
_NOT_FOUND: Final = 404
_CURRENT: Final = re.compile(r"current version \[(\d+)\]")
_GROWTH: Final = 1.1


class Pace:
    """How much is sent at once: less after a server was busy, slowly more again. Threads share it."""

    def __init__(self, actions_max: int) -> None:
        self._actions_max = actions_max
        self._now = float(actions_max)

    @property
    def actions_max(self) -> int:
        """Actions in one request now."""
        return max(1, int(self._now))

    def shrink(self, actions: int) -> None:
        """Send at most half of what was too much."""
        self._now = max(1.0, min(self._now, actions) / 2)

    def grow(self) -> None:
        """Take a little more."""
        self._now = min(float(self._actions_max), self._now * _GROWTH)


class Bulk:
    """Sends actions and judges their answers. Threads share it."""

    def __init__(self, client: Client, *, options: str, gzip: bool, pace: Pace) -> None:
        self._client = client
        self._path = f"/_bulk?timeout={SHARD_WAIT}&{FILTER}{options}"
        self._gzip = gzip
        self._pace = pace
        self._away = threading.Event()
        """Set when the sink is closed: nobody waits any longer."""

    def stop(self) -> None:
        """End all waiting."""
        self._away.set()

    def send(self, actions: Sequence[Action], alive: Callable[[], float]) -> dict[Ref, str]:
        """Send until every action is done or refused for good; return why, by its changes.

        `alive` returns how many seconds a request may take, and raises Transient when it is too late to send one.
        """
        reasons: dict[Ref, str] = {}
        waited_s, wait_s = 0.0, WAIT_S
        left = list(actions)
        while left:
            some, rest = left[: self._pace.actions_max], left[self._pace.actions_max :]
            later, reason = self._send_once(some, reasons, alive())
            left = later + rest
            if not reason:
                self._pace.grow()
                wait_s = WAIT_S
                continue
            self._pace.shrink(len(some))
            if waited_s >= PATIENCE_S or self._away.wait(wait_s):
                raise Transient(End.SINK, f"the cluster takes no more documents for now: {reason}")
            waited_s += wait_s
            wait_s = min(WAIT_MAX_S, 2 * wait_s)
        return reasons

    def _send_once(self, actions: list[Action], reasons: dict[Ref, str], timeout_s: float) -> tuple[list[Action], str]:
        """Send one request; return the actions that come again, and why."""
        body = b"".join([action.text for action in actions])
        doing = "writing documents"
        answer = self._client.send("POST", self._path, body, doing, gzip=self._gzip, timeout_s=timeout_s)
        if answer.status < OK:
            return self._judge_items(actions, answer.body, reasons)
        said = answer.parsed()
        kind, reason = error_of(said)
        rule = rule_of(answer.status, kind)
        if rule.verdict is Verdict.LATER and not blocked(reason):
            return actions, f"{reason or kind} (HTTP {answer.status})"
        if rule.verdict is not Verdict.TOO_LARGE:
            raise verdict(answer.status, said, End.SINK, doing)
        if len(actions) == 1:
            _reject(
                reasons, actions[0].cause, f"the document has {len(body)} bytes, more than the cluster takes at once"
            )
            return [], ""
        half = len(actions) // 2
        later, busy = self._send_once(actions[:half], reasons, timeout_s)
        if busy:
            return later + actions[half:], busy
        return self._send_once(actions[half:], reasons, timeout_s)

    def _judge_items(self, actions: list[Action], body: bytes, reasons: dict[Ref, str]) -> tuple[list[Action], str]:
        if _all_done(actions, body):
            return [], ""
        items = orjson.loads(body)["items"]
        if len(items) != len(actions):
            msg = f"the cluster answered for {len(items)} of {len(actions)} documents"
            raise Fatal(msg, hint="what stands between it and cdcsync? a proxy must leave answers as they are")
        later, busy = [], ""
        for action, item in zip(actions, items, strict=True):
            ((kind, result),) = item.items()
            status = result["status"]
            if status < OK or (status == _NOT_FOUND and kind == "delete" and "error" not in result):
                if result["_index"] != action.to.concrete:
                    raise _moved(action.to, result["_index"])
                continue
            waits = _judge(action, status, result.get("error", {}), reasons)
            if waits:
                later.append(action)
                busy = waits
        return later, busy


def _all_done(actions: list[Action], body: bytes) -> bool:
    """Return whether an answer, as text, says that nothing is wrong, and names the indexes that were meant.

    The flag is the server's own sum of all items. Nothing within an item's strings looks like its index: their quotes
    are escaped.
    """
    if _NO_ERRORS not in body[: body.find(_ITEMS)]:
        return False
    wanted = Counter([action.to.concrete for action in actions])
    return all(body.count(b'"_index":%b' % orjson.dumps(name)) == count for name, count in wanted.items())


def _judge(action: Action, status: int, error: Any, reasons: dict[Ref, str]) -> str:
    """Judge an item that is an error; return why it comes again, or nothing when it is done with."""
    kind, reason = error_of(error)
    rule = rule_of(status, kind)
    if rule.verdict is Verdict.CONFLICT:
        _judge_conflict(action, reason)
        return ""
    if rule.verdict is Verdict.ROW:
        _reject(reasons, action.cause, why(error) if isinstance(error, dict) else "refused without a reason")
        return ""
    if rule.verdict is Verdict.TOO_LARGE:
        _reject(reasons, action.cause, "the document is larger than the cluster takes")
        return ""
    if rule.verdict is Verdict.LATER and not blocked(reason):
        return f"{kind} (HTTP {status})"
    raise verdict(status, error, End.SINK, f"writing to index {action.to.name}")


def _judge_conflict(action: Action, reason: str) -> None:
    """Return when a document of our own epoch is there already. Raises Fatal for any other."""
    found = _CURRENT.search(reason)
    if found is not None and int(found[1]) >> PLACE_BITS == action.version >> PLACE_BITS:
        return
    index = action.to.name
    if found is None:
        msg = f"writing to index {index}: a conflict of versions that says nothing of the version there"
        raise Fatal(msg, hint="this server is not known to cdcsync: report its version")
    there, ours = int(found[1]) >> PLACE_BITS, action.version >> PLACE_BITS
    msg = f"index {index} holds a document of epoch {there}, this pipeline writes in epoch {ours}: nothing was put over it"
    hint = (
        "another pipeline, or another history of the source, has written there: stop it; or map to another index, or "
        "forget the position with `cdcsync positions clear`, delete the index, and run again to copy everything"
    )
    raise Fatal(msg, hint=hint, status=ExitStatus.OWNERSHIP)


def _reject(reasons: dict[Ref, str], cause: Cause, reason: str) -> None:
    reasons.update(dict.fromkeys(cause.refs(), reason))


def _moved(index: Index, concrete: str) -> Fatal:
    msg = f"{index.name} was {index.concrete} when the pipeline was started and is {concrete} now"
    hint = "point the alias back and run again; to change to another index, stop the pipeline first"
    return Fatal(msg, hint=hint)
