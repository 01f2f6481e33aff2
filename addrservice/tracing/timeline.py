"""What was called when, as a picture."""

import os
import sys
from collections import deque
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import orjson

from addrservice.tracing.spans import AbstractTraceCollector, Span


class Timeline(AbstractTraceCollector):
    """Keeps the newest spans and writes them as Trace Event JSON, for Perfetto or chrome://tracing.

    Spans of one asyncio task share a track; tasks that overlap have tracks of their own.
    Source of the format: "Trace Event Format", the Chromium project.

    :param file: where to write at stop
    :param max_events: how many spans to keep
    """

    def __init__(self, file: str, max_events: int = 100_000) -> None:
        if not isinstance(max_events, int) or not 1 <= max_events <= sys.maxsize:
            raise ValueError('max-events must be a number of 1 or more')
        self._file = Path(file)
        self._events: deque[dict[str, Any]] = deque(maxlen=max_events)
        self._seen = 0
        self._tracks = _Tracks()

    def enter(self, span: Span) -> None:
        self._tracks.enter(span.task)

    def exit(self, span: Span) -> None:
        self._seen += 1
        self._events.append({
            'name': span.name,
            'ph': 'X',  # a complete event; times in microseconds
            'ts': span.start_ns / 1000,
            'dur': span.duration_ns / 1000,
            'pid': os.getpid(),
            'tid': self._tracks.exit(span.task),
            'args': {} if span.error is None else {'error': type(span.error).__name__},
        })

    def stop(self) -> str | None:
        """Writes the file, unless nothing was seen; says how much of it is in the file."""
        if not self._seen:
            return None
        self._file.write_bytes(orjson.dumps({
            'traceEvents': list(self._events),
            'displayTimeUnit': 'ms',
        }))
        return f'{len(self._events)} of {self._seen} spans written to {self._file}'


class _Tracks:
    """Numbers for what runs at the same time: the lowest free one, given back at the end."""

    def __init__(self) -> None:
        self._open: dict[object, list[int]] = {}  # task -> [track, spans open]
        self._free: list[int] = []

    def enter(self, task: object) -> None:
        if task not in self._open:
            track = heappop(self._free) if self._free else len(self._open) + 1
            self._open[task] = [track, 0]
        self._open[task][1] += 1

    def exit(self, task: object) -> int:
        entry = self._open[task]
        entry[1] -= 1
        if entry[1] == 0:
            del self._open[task]
            heappush(self._free, entry[0])
        return entry[0]
