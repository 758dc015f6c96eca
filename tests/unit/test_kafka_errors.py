"""Every error of Kafka's has one verdict, and says what to do."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from cdcsync.errors import End, ExitStatus, Fatal, Transient
from cdcsync.kafka.errors import RULES, Verdict, verdict

STATUS = {
    Verdict.PERMISSION: ExitStatus.PERMISSION,
    Verdict.OWNERSHIP: ExitStatus.OWNERSHIP,
    Verdict.CONFIG: ExitStatus.CONFIG,
    Verdict.DATA: ExitStatus.DATA,
    Verdict.ROWS: ExitStatus.DATA,
}


@pytest.mark.parametrize("code", sorted(RULES), ids=lambda code: str(KafkaError(code).name()))
def test_each_row_of_the_table_is_raised_as_it_says(code: int) -> None:
    rule = RULES[code]

    got = verdict(KafkaError(code, "words"), End.SINK, "producing to orders")

    assert "producing to orders: words" in str(got)
    if rule.verdict is Verdict.TRANSIENT:
        assert isinstance(got, Transient)
        assert got.end is End.SINK
    else:
        assert isinstance(got, Fatal)
        assert got.status is STATUS[rule.verdict]
        assert got.hint


def test_what_nobody_knows_is_fatal() -> None:
    got = verdict(KafkaError(KafkaError.UNKNOWN, "words"), End.SOURCE, "reading")

    assert isinstance(got, Fatal)
    assert got.status is ExitStatus.DATA
