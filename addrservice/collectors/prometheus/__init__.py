"""Metrics for Prometheus, on its official library.

One process keeps its figures to itself. The workers of a supervisor share theirs in a folder, and
whichever of them is asked answers for all: see ``figures``.
"""

from addrservice.collectors.prometheus.collector import PrometheusCollector

__all__ = ['PrometheusCollector']
