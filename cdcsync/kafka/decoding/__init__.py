"""Reads changes out of messages: a decoder for each format. Pure functions of bytes; nothing here connects."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import orjson

from cdcsync.change import UNCHANGED
from cdcsync.kafka.decoding.canal import Canal
from cdcsync.kafka.decoding.columns import How
from cdcsync.kafka.decoding.debezium import PLACEHOLDER, Debezium
from cdcsync.kafka.decoding.flat import Flat
from cdcsync.kafka.decoding.layouts import Declared, Layouts
from cdcsync.kafka.decoding.maxwell import Maxwell
from cdcsync.kafka.decoding.numbers import loads as exact_loads
from cdcsync.kafka.decoding.opening import Json
from cdcsync.kafka.decoding.plain import JsonRows, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cdcsync.kafka.decoding.avro import Avro
    from cdcsync.kafka.decoding.opening import Opener
    from cdcsync.kafka.decoding.records import Decoder

FORMATS: Final = ("debezium", "flat", "maxwell", "canal", "json", "text")


@dataclass(frozen=True, slots=True)
class Reading:
    """How messages are to be read; what their format leaves open."""

    format: str = "debezium"
    declared: Mapping[str, Declared] = field(default_factory=dict)
    """Tables by qualified name."""
    how: How = field(default_factory=How)
    """How values are written in JSON without a schema."""
    placeholder: str = PLACEHOLDER
    """What stands for a value that the log did not carry."""
    avro: Avro | None = None
    """Opens values in Avro; None: they are JSON."""


def decoder_of(reading: Reading) -> Decoder:
    """Return a decoder for the records of one topic."""
    kind = reading.format
    exact = kind in {"maxwell", "flat", "json"}
    absent = UNCHANGED if kind == "debezium" else None
    layouts = Layouts(reading.declared, absent, reading.how)
    keys: Opener = Json()
    values: Opener = Json(exact_loads if exact else orjson.loads)
    if reading.avro is not None:
        keys, values = reading.avro.keys(), reading.avro
    if kind == "debezium":
        return Debezium(keys, values, layouts, reading.placeholder)
    if kind == "flat":
        return Flat(keys, values, layouts)
    if kind == "maxwell":
        return Maxwell(keys, values, layouts)
    if kind == "canal":
        return Canal(values, layouts)
    if kind == "json":
        return JsonRows(values, layouts)
    return Text()
