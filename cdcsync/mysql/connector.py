"""The entry point of MySQL and MariaDB."""

from __future__ import annotations

from cdcsync.connectors import Connector
from cdcsync.mysql.config import from_url

CONNECTOR = Connector(name="mysql", schemes=("mysql", "mariadb"), from_url=from_url)
