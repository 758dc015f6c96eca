"""Reads a whole binlog and decodes nothing: what a server can send to one reader."""

from __future__ import annotations

import struct
import sys

import pymysql

DUMP = 0x12
WITHOUT_WAITING = 1
SERVER_ID = 4711


def main(host: str, port: int, user: str, password: str) -> None:
    """Read from the first event of the first file to the end of the last; print the bytes."""
    connection = pymysql.connect(host=host, port=port, user=user, password=password, ssl_disabled=True)
    with connection.cursor() as cursor:
        cursor.execute("set @master_binlog_checksum = 'NONE', @source_binlog_checksum = 'NONE'")
    connection._execute_command(DUMP, struct.pack("<IHI", 4, WITHOUT_WAITING, SERVER_ID) + b"")  # noqa: SLF001  PyMySQL has no other way
    size = 0
    while True:
        packet = connection._read_packet()  # noqa: SLF001  as above
        if packet.is_eof_packet():
            break
        size += len(packet.get_all_data())
    sys.stdout.write(f"{size}\n")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])
