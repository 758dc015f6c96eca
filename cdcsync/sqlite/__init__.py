"""SQLite as a sink and as a store of positions."""
