"""confluent-kafka, reading alone: all committed records of a topic, and nothing done with them."""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, TopicPartition


def main(bootstrap: str, topic: str, partitions: int, records: int) -> None:
    """Read them; returns once all were seen."""
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "bare", "isolation.level": "read_committed",
         "enable.auto.commit": False}
    )  # fmt: skip
    consumer.assign([TopicPartition(topic, at, 0) for at in range(partitions)])
    read = 0
    while read < records:
        read += sum(1 for message in consumer.consume(2000, 1.0) if message.error() is None)
    consumer.close()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
