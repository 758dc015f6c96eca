"""What a pipeline's file says about Kafka as a source."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cdcsync.errors import End
from cdcsync.kafka.client import KafkaClientConfig
from cdcsync.kafka.decoding import Reading
from cdcsync.kafka.decoding.columns import How, declared
from cdcsync.kafka.decoding.debezium import PLACEHOLDER
from cdcsync.kafka.decoding.layouts import Declared
from cdcsync.kafka.registry import Registry, RegistryLogin
from cdcsync.mapping.names import Pattern
from cdcsync.units import Moment, first_word

if TYPE_CHECKING:
    from cdcsync.kafka.decoding.avro import Avro

STARTS: Final = "earliest, now, {time: ..}"


class Format(enum.StrEnum):
    """What the values of the topics are."""

    DEBEZIUM = "debezium"
    """Debezium's envelope, with or without its schema."""
    FLAT = "flat"
    """The row alone; a record without a value deletes its key's row."""
    MAXWELL = "maxwell"
    CANAL = "canal"
    JSON = "json"
    """Each value is a row that is inserted and stays."""
    TEXT = "text"
    """Each value is a row of one text."""


class OnLostPosition(enum.StrEnum):
    """What happens where what comes next is gone: by retention, or because the topic was made anew."""

    STOP = "stop"
    EARLIEST = "earliest"
    """Go on with the first record that is there, in a new epoch; what lies between is not delivered."""


class Versions(enum.StrEnum):
    """What orders the changes of a key."""

    AUTO = "auto"
    """The versions of the sender, where the first record has one, else offsets."""
    OFFSET = "offset"


class FromTime(BaseModel):
    """Start at the first record of that time or later."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    time: Moment
    """As `2026-11-24T08:00:00Z`."""


class DeclaredTable(BaseModel):
    """The structure of a table whose messages do not say it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    columns: dict[str, str] = Field(default_factory=dict)
    """Types by name, in SQL's words: `bigint`, `decimal(10,2)`, `timestamp(3)`, `json`, `text[]`; absent: as the
    messages say, else text."""
    key: tuple[str, ...] | None = None
    """Names of the key's columns; absent: those of the records' keys."""

    @field_validator("columns")
    @classmethod
    def _types(cls, value: dict[str, str]) -> dict[str, str]:
        for name, text in value.items():
            try:
                declared(text)
            except ValueError as error:
                msg = f"column {name}: {error}"
                raise ValueError(msg) from error
        return value

    @model_validator(mode="after")
    def _key_is_there(self) -> DeclaredTable:
        missing = [name for name in self.key or () if self.columns and name not in self.columns]
        if missing:
            msg = f"`key` names {', '.join(missing)}, which `columns` has not"
            raise ValueError(msg)
        return self


class KafkaSource(KafkaClientConfig):
    """Topics whose records are changes, or rows that are inserted."""

    topic: str | None = None
    """One topic; or several under `topics`."""
    topics: tuple[str, ...] = ()
    """Topics by name, as globs or whole /regexes/."""
    format: Format = Format.DEBEZIUM
    """`debezium`, `flat`, `maxwell`, `canal`, `json` or `text`: what the values are."""
    registry: RegistryLogin | None = None
    """A Confluent-compatible schema registry: values of `debezium` and `flat` are Avro, and so are their keys unless
    these are JSON or a text. Absent: JSON."""
    group: str | None = Field(None, min_length=1)
    """A consumer group whose members share the partitions: start the pipeline several times. Absent: this process
    reads all of them, and tells its offsets to the group `cdcsync-PIPELINE`, where lag is seen."""
    start: Literal["earliest", "now"] | FromTime = "earliest"
    """Of the first run: `earliest`, `now` or `{time: ..}`; afterwards the stored position alone counts."""
    on_lost_position: OnLostPosition = OnLostPosition.STOP
    """`stop`, or `earliest`: go on, in a new epoch, with the first record that is still there."""
    versions: Versions = Versions.AUTO
    """`auto`: the sender's, where the records have a header of that name, else offsets; `offset`: always these."""
    decimal_handling_mode: Literal["precise", "double", "string"] = "precise"
    """Debezium's: how `debezium` and `flat` write decimals in JSON without a schema."""
    binary_handling_mode: Literal["bytes", "base64", "base64-url-safe", "hex"] = "bytes"
    """Debezium's: how bytes are written in JSON without a schema."""
    unavailable_value: str = PLACEHOLDER
    """What Debezium writes for a value that the log did not carry."""
    tables: dict[str, DeclaredTable] = Field(default_factory=dict)
    """Structure of tables, by `schema.table`, where the messages do not say it."""

    @field_validator("start", mode="before")
    @classmethod
    def _start(cls, value: Any) -> Any:
        word = first_word(value)
        if word is not None and word not in {"earliest", "now", "time"}:
            msg = f"start: one of {STARTS}"
            raise ValueError(msg)
        return value

    @field_validator("topics")
    @classmethod
    def _patterns(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            if is_pattern(text):
                topic_pattern(text)
        return value

    @model_validator(mode="after")
    def _some(self) -> KafkaSource:
        if (self.topic is None) == (not self.topics):
            msg = "name either `topic` or `topics`"
            raise ValueError(msg)
        if self.registry is not None and self.format not in {Format.DEBEZIUM, Format.FLAT}:
            msg = f"{self.format} is no Avro: `registry` goes with debezium and flat"
            raise ValueError(msg)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """The topics, as they are named."""
        return self.topics if self.topic is None else (self.topic,)

    def reading(self, avro: Avro | None = None) -> Reading:
        """Return how the messages are read; `avro` opens them where they are."""
        tables = {name: Declared(table.columns, table.key) for name, table in self.tables.items()}
        decimals = self.decimal_handling_mode if self.format in {Format.DEBEZIUM, Format.FLAT} else "string"
        how = How(self.binary_handling_mode, decimals)
        return Reading(self.format.value, tables, how, self.unavailable_value, avro)

    def avro(self) -> Avro | None:
        """Return what opens messages in Avro, its schemas looked up once; None where they are JSON."""
        if self.registry is None:
            return None
        from cdcsync.kafka.decoding.avro import Avro  # noqa: PLC0415  brings fastavro along

        return Avro(Registry.of(self.registry, End.SOURCE))

    def group_of(self, pipeline: str) -> str:
        """Return the consumer group."""
        return self.group or f"cdcsync-{pipeline}"


def is_pattern(text: str) -> bool:
    """Return whether a topic's name is a glob or a regex."""
    return text.startswith("/") or any(mark in text for mark in "*?")


def topic_pattern(text: str) -> Pattern:
    """Return the pattern of a glob, whose star takes dots too, or of a regex. Raises ValueError."""
    if text.startswith("/"):
        return Pattern.parse(text)
    special = {"*": ".*", "?": "."}
    expression = "".join(special.get(each) or (each if each.isalnum() else f"\\{each}") for each in text)
    return Pattern.parse(f"/{expression}/")
