"""What a server is: its flavour, its name, how it logs, and which words it takes; asked once for a connection."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from cdcsync.mysql.gtid import GtidList, Gtids, GtidSet

if TYPE_CHECKING:
    from collections.abc import Mapping

_ASKED: Final = (
    "version",
    "version_comment",
    "server_id",
    "server_uuid",
    "server_uid",
    "log_bin",
    "binlog_format",
    "binlog_row_image",
    "binlog_row_metadata",
    "binlog_row_value_options",
    "binlog_checksum",
    "binlog_encryption",
    "encrypt_binlog",
    "binlog_expire_logs_seconds",
    "binlog_expire_logs_auto_purge",
    "expire_logs_days",
    "max_binlog_total_size",
    "binlog_space_limit",
    "sync_binlog",
    "gtid_mode",
    "gtid_executed",
    "gtid_purged",
    "gtid_binlog_pos",
    "gtid_binlog_state",
    "gtid_slave_pos",
    "gtid_domain_id",
    "gtid_strict_mode",
    "read_only",
    "super_read_only",
    "log_slave_updates",
    "log_replica_updates",
    "lower_case_table_names",
    "max_allowed_packet",
    "innodb_version",
    "performance_schema",
    "require_secure_transport",
    "port",
    "hostname",
    "max_execution_time",
    "max_statement_time",
    "transaction_isolation",
    "tx_isolation",
)
VARIABLES: Final = f"SHOW GLOBAL VARIABLES WHERE Variable_name IN ({', '.join(repr(name) for name in _ASKED)})"
"""One question that both flavours answer with what they have of it."""


class Flavor(enum.StrEnum):
    """The two families of servers."""

    MYSQL = "mysql"
    MARIADB = "mariadb"


@dataclass(frozen=True, slots=True)
class Server:
    """The answers, as values; nothing here is asked again."""

    flavor: Flavor
    version: tuple[int, int, int]
    variables: Mapping[str, str] = field(repr=False)
    """Global variables by name, those that the server has."""

    @classmethod
    def of(cls, variables: Mapping[str, str]) -> Server:
        """Make it of what `VARIABLES` answers."""
        named = {str(name).lower(): str(value) for name, value in variables.items()}
        text = named["version"]
        flavor = Flavor.MARIADB if "mariadb" in f"{text} {named.get('version_comment', '')}".lower() else Flavor.MYSQL
        numbers = re.match(r"(?:5\.5\.5-)?(\d+)\.(\d+)\.(\d+)", text)
        assert numbers is not None  # noqa: S101  every server has three
        return cls(flavor, (int(numbers[1]), int(numbers[2]), int(numbers[3])), named)

    def variable(self, name: str, absent: str = "") -> str:
        """Return a global variable; `absent` where this server has none of that name."""
        return self.variables.get(name, absent)

    def is_on(self, name: str) -> bool:
        """Return whether a global variable is on."""
        return self.variable(name).upper() in {"ON", "1", "YES"}

    @property
    def title(self) -> str:
        """For people: MySQL 8.0.15."""
        name = "MariaDB" if self.flavor is Flavor.MARIADB else "MySQL"
        return f"{name} {'.'.join(map(str, self.version))}"

    @property
    def server_id(self) -> int:
        """Its number in replication; 0: none was given."""
        return int(self.variable("server_id", "0"))

    @property
    def uuid(self) -> str:
        """What tells it from other servers: MySQL's server_uuid; MariaDB's server_uid and server_id."""
        if self.flavor is Flavor.MYSQL:
            return self.variable("server_uuid")
        return (
            f"{self.variable('server_uid', self.variable('hostname') + ':' + self.variable('port'))}/{self.server_id}"
        )

    @property
    def name(self) -> str:
        """As stores keep it beside a position, and circles are found by it."""
        return f"{self.flavor.value}:{self.uuid}"

    @property
    def has_gtids(self) -> bool:
        """Whether each transaction of its log has a GTID."""
        return self.flavor is Flavor.MARIADB or self.variable("gtid_mode").upper() in {"ON", "ON_PERMISSIVE"}

    @property
    def is_read_only(self) -> bool:
        """Whether nothing may be written."""
        return self.variable("read_only").upper() not in {"", "OFF", "0"} or self.is_on("super_read_only")

    @property
    def executed(self) -> Gtids:
        """All transactions that its log has, or had before it was purged."""
        if self.flavor is Flavor.MARIADB:
            return GtidList.last_of(self.variable("gtid_binlog_state"))
        return GtidSet.parse(self.variable("gtid_executed"))

    @property
    def purged(self) -> GtidSet:
        """MySQL's: the transactions that its log has no longer."""
        return GtidSet.parse(self.variable("gtid_purged"))

    @property
    def status_query(self) -> str:
        """What gives file and offset of the log's end."""
        return "SHOW BINARY LOG STATUS" if self._is_mysql((8, 2, 0)) else "SHOW MASTER STATUS"

    @property
    def readers_query(self) -> str:
        """What lists those who read its log, by server id; those of us who registered are among them."""
        return "SHOW REPLICAS" if self._is_mysql((8, 0, 22)) else "SHOW SLAVE HOSTS"

    @property
    def replica_query(self) -> str:
        """What tells whether it reads another server's log itself."""
        if self.flavor is Flavor.MARIADB:
            return "SHOW ALL SLAVES STATUS"
        return "SHOW REPLICA STATUS" if self._is_mysql((8, 0, 22)) else "SHOW SLAVE STATUS"

    def lasting(self, name: str, value: str) -> str:
        """Return the statement that sets a global variable, and keeps it over a restart where the server can."""
        shown = value if value.isdigit() else f"'{value}'"
        if self._is_mysql((8, 0, 0)):
            return f"SET PERSIST {name} = {shown};"
        return f"SET GLOBAL {name} = {shown};  -- and in the server's configuration: {name} = {value}"

    def time_limit(self, seconds: float) -> tuple[str, int | float]:
        """Return the statement that bounds how long a SELECT of a session may take, and its value."""
        if "max_execution_time" in self.variables:
            return "SET SESSION max_execution_time = %s", max(1, round(seconds * 1000))
        return "SET SESSION max_statement_time = %s", seconds

    def settings(self, wanted: Mapping[str, str | int]) -> dict[str, str | int]:
        """Return session variables by the names that this server has for them, without those that it does not know."""
        found = dict(wanted)
        if "transaction_isolation" in found and "transaction_isolation" not in self.variables:
            found["tx_isolation"] = found.pop("transaction_isolation")
        if "max_execution_time" in self.variables:
            found["max_execution_time"] = 0
        elif "max_statement_time" in self.variables:
            found["max_statement_time"] = 0
        return found

    def _is_mysql(self, since: tuple[int, int, int]) -> bool:
        return self.flavor is Flavor.MYSQL and self.version >= since
