"""Benchmarks: cdcsync and its peers by turns, on the same input, in one run."""
