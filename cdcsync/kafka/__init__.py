"""Kafka: changes out of topics and into them."""
