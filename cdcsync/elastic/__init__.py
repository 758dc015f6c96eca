"""Elasticsearch and OpenSearch as a sink and as a store of positions."""
