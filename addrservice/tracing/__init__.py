"""Tracing: ``@trace()`` marks what is worth watching, collectors watch it.

A span is one call of a marked function, from entry to exit, or one request, one operation of the
store, one statement. Every collector in force is told of both its ends. Collectors are named in
the configuration by the dotted path of their class, so that anyone can plug in their own. With
none in force a marked call costs one comparison.
"""

from addrservice.tracing.decorator import trace
from addrservice.tracing.function_table import CumulativeFunctionTimeProfiler
from addrservice.tracing.spans import (
    INNER_KINDS, AbstractTraceCollector, Attribute, Kind, Span, begin_request, collecting,
    create_collector, end_request, is_followed_here, is_on, span,
)
from addrservice.tracing.timeline import Timeline

__all__ = [
    'INNER_KINDS', 'AbstractTraceCollector', 'Attribute', 'CumulativeFunctionTimeProfiler',
    'Kind', 'Span', 'Timeline', 'begin_request', 'collecting', 'create_collector', 'end_request',
    'is_followed_here', 'is_on', 'span', 'trace',
]
