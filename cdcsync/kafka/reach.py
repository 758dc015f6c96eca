"""A client's first answer: what keeps a broker from giving it is told by a callback alone."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from confluent_kafka import KafkaError, KafkaException

from cdcsync.kafka.errors import RULES, Verdict, error_of, rule_of, verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from cdcsync.errors import End, Fatal, Transient

REACH_S: Final = 5.0
_TELLING: Final = frozenset({Verdict.CONFIG, Verdict.PERMISSION})


class Client(Protocol):
    """What producers and administrators have in common."""

    def poll(self, timeout: float) -> Any:
        """Serve callbacks."""

    def list_topics(self, topic: str | None = None, timeout: float = -1) -> Any:
        """Ask a broker."""


ClientT = TypeVar("ClientT", bound=Client)


class Told(list[KafkaError]):
    """What a client said of its connections."""

    def verdict(self, error: KafkaError, end: End, doing: str) -> Transient | Fatal:
        """Return the verdict of an error; where it only says that nobody answers, that of what was said before."""
        said = next((each for each in self if rule_of(each).verdict in _TELLING), None)
        known = RULES.get(error.code())
        if said is not None and (known is None or known.verdict is Verdict.TRANSIENT):
            return verdict(said, end, doing)
        return verdict(error, end, doing)


def reached(
    make: Callable[[dict[str, Any]], ClientT], settings: Mapping[str, Any], where: str, end: End
) -> tuple[ClientT, Told]:
    """Return a client that a broker has answered, and the list of what it says. Raises Transient, Fatal."""
    told = Told()
    doing = f"connecting to {where}"
    try:
        client = make({"log_level": 2, **settings, "error_cb": told.append})
    except KafkaException as error:
        raise verdict(error_of(error), end, doing) from error
    until = time.monotonic() + REACH_S
    while True:
        try:
            client.list_topics(timeout=1.0)
        except KafkaException as error:
            client.poll(0)
            late = time.monotonic() > until
            if late or any(rule_of(each).verdict in _TELLING for each in told):
                raise told.verdict(error_of(error), end, doing) from error
        else:
            return client, told
