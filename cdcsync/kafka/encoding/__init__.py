"""A change as the records of a topic: Debezium's envelope, flat rows, Maxwell's and Canal's messages."""
