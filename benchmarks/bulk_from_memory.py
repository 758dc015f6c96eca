"""What a cluster takes: documents that are in memory already, sent by threads as bulk requests, each answer read."""

from __future__ import annotations

import http.client
import sys
import threading
import time
from pathlib import Path

import orjson

REFUSED = 300


def bodies(path: Path, actions: int) -> list[bytes]:
    """Return the requests: two lines an action."""
    lines = path.read_bytes().splitlines(keepends=True)
    return [b"".join(lines[at : at + 2 * actions]) for at in range(0, len(lines), 2 * actions)]


def main(port: str, index: str, file: str, actions: str, threads: str) -> None:
    """Send them all; print the seconds from the first request to the last answer."""
    left = bodies(Path(file), int(actions))
    left.reverse()
    wrong: list[bytes] = []

    def send() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", int(port))
        while left and not wrong:
            try:
                body = left.pop()
            except IndexError:
                return
            connection.request("POST", f"/{index}/_bulk", body, {"Content-Type": "application/x-ndjson"})
            answer = connection.getresponse()
            text = answer.read()
            items = orjson.loads(text).get("items", ())
            if answer.status >= REFUSED or not items or any(each["index"]["status"] >= REFUSED for each in items):
                wrong.append(text[:1000])

    workers = [threading.Thread(target=send) for _ in range(int(threads))]
    began = time.monotonic()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    seconds = time.monotonic() - began
    if wrong:
        sys.exit(wrong[0].decode())
    print(seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
