"""Measures the service, beside its peers and by itself."""


class BenchError(Exception):
    """Something cannot be measured; the message says why, in one line."""
