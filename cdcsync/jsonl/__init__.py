"""Lines of JSON, to standard output or a file."""
