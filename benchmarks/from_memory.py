"""confluent-kafka from memory: the same bytes, again and again, in transactions of so many records."""

from __future__ import annotations

import sys

from confluent_kafka import Producer


def main(bootstrap: str, topic: str, records: int, size: int, each: int) -> None:
    """Send them; every record is durable on return."""
    producer = Producer(
        {"bootstrap.servers": bootstrap, "transactional.id": "from-memory", "acks": "all", "linger.ms": 5,
         "queue.buffering.max.kbytes": 32768, "partitioner": "murmur2_random"}
    )  # fmt: skip
    producer.init_transactions(30)
    value = b"x" * size
    sent = 0
    while sent < records:
        producer.begin_transaction()
        for number in range(sent, min(sent + each, records)):
            while True:
                try:
                    producer.produce(topic, value, b'{"id":%d}' % number)
                except BufferError:
                    producer.poll(0.01)
                else:
                    break
        producer.commit_transaction(60)
        sent += each


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:]))
