"""Kafka Connect schemas of rows, keys and Debezium's envelope, as JsonConverter writes them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cdcsync.kafka.encoding.records import Sender
    from cdcsync.kafka.encoding.rows import Rows

STRINGS: Final = frozenset(
    {"version", "connector", "name", "snapshot", "db", "sequence", "schema", "table", "gtid", "file", "query"}
)
_REQUIRED: Final = frozenset({"version", "connector", "name", "ts_ms", "db", "table"})


def base_name(rows: Rows, sender: Sender) -> str:
    """Return what the schemas of a table are named by: pipeline, schema and table, in the letters that Avro has."""
    parts = (sender.pipeline, rows.table.schema, rows.table.name)
    return ".".join(re.sub(r"^(?=\d)|[^A-Za-z0-9_]", "_", part) for part in parts if part)


def row_schema(rows: Rows, name: str, *, optional: bool, field: str = "") -> dict[str, Any]:
    """Return the struct of a row; columns of the key, and those that are never null, are required."""
    fields = [
        form.schema(optional=column.nullable and column.name not in rows.table.key, field_name=column.name)
        for column, form in rows.columns
    ]
    made: dict[str, Any] = {"type": "struct", "fields": fields, "optional": optional, "name": name}
    return made | ({"field": field} if field else {})


def key_schema(rows: Rows, sender: Sender) -> dict[str, Any]:
    """Return the struct of a record's key."""
    fields = [
        rows.forms[at].schema(optional=False, field_name=name)
        for at, name in zip(rows.key_at, rows.key_names, strict=True)
    ]
    return {"type": "struct", "fields": fields, "optional": False, "name": f"{base_name(rows, sender)}.Key"}


def envelope_schema(rows: Rows, sender: Sender) -> dict[str, Any]:
    """Return the struct of Debezium's envelope."""
    base = base_name(rows, sender)
    value = f"{base}.Value"
    return {
        "type": "struct",
        "fields": [
            row_schema(rows, value, optional=True, field="before"),
            row_schema(rows, value, optional=True, field="after"),
            source_schema(sender),
            transaction_schema(),
            {"type": "string", "optional": False, "field": "op"},
            *[{"type": "int64", "optional": True, "field": name} for name in ("ts_ms", "ts_us", "ts_ns")],
        ],
        "optional": False,
        "name": f"{base}.Envelope",
        "version": 2,
    }


def source_schema(sender: Sender) -> dict[str, Any]:
    """Return the struct of the `source` block."""
    names = ["version", "connector", "name", "ts_ms", "snapshot", "db", "sequence", "ts_us", "ts_ns"]
    if sender.connector == "mysql":
        names += ["table", "server_id", "gtid", "file", "pos", "row", "thread", "query"]
    else:
        names += ["schema", "table", "txId"] + (["lsn", "xmin"] if sender.connector == "postgresql" else [])
    fields = [
        {
            "type": "string" if name in STRINGS else "int32" if name == "row" else "int64",
            "optional": name not in _REQUIRED,
            "field": name,
        }
        for name in names
    ]
    connector = sender.connector or "cdcsync"
    struct = {"type": "struct", "fields": fields, "optional": False, "field": "source"}
    return struct | {"name": f"io.debezium.connector.{connector}.Source", "version": 1}


def transaction_schema() -> dict[str, Any]:
    """Return the struct of the `transaction` block."""
    fields = [
        {"type": "string", "optional": False, "field": "id"},
        {"type": "int64", "optional": False, "field": "total_order"},
        {"type": "int64", "optional": False, "field": "data_collection_order"},
    ]
    struct = {"type": "struct", "fields": fields, "optional": True, "field": "transaction"}
    return struct | {"name": "event.block", "version": 1}
