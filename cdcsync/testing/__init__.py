"""What proves a connector: conformance suites, in-memory ends, faults, the trace and real servers."""
