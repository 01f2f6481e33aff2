"""Sampling profiles of the running service: where the time of its event loop goes.

A profile is a tree of calls with the time spent in each. Samples with the same stack are added up
as they come, so that a long profile takes no more memory than a short one.
"""

import asyncio
import inspect
import os
import sys
import threading
import time
from collections.abc import Mapping
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Final

import orjson

from addrservice.config import ProfilingSettings

if TYPE_CHECKING:
    from pyinstrument.session import Session
    from pyinstrument.stack_sampler import StackSampler

MAX_STACKS: Final = 20_000  # a busy service has about a thousand

# Who may read a profile: it tells how the service is built.
_MODE: Final = 0o600


class SamplingProfiler:
    """Starts, stops and writes profiles of the thread that it is called in.

    :param settings: where they go, how finely they look, how long
    """

    def __init__(self, settings: ProfilingSettings, logger: Logger) -> None:
        self._settings = settings
        self._logger = logger
        self._profile: _Profile | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._writing: threading.Thread | None = None

    def toggle(self) -> None:
        """Starts a profile, or ends the one that runs. Called in the event loop.

        It ends by itself after the time in the settings, and is written while requests go on.
        """
        if self._profile is not None:
            self._stop()
        elif self._writing is not None and self._writing.is_alive():
            self._logger.warning('the last profile is still being written')
        else:
            self._start()

    def close(self) -> None:
        """Ends the profile that runs, if any, and waits until it is written."""
        if self._profile is not None:
            self._stop()
        if self._writing is not None:
            self._writing.join()

    def _start(self) -> None:
        try:
            self._profile = _Profile(self._settings.interval)
        except Exception as error:  # not installed, or somebody else's profiler is in its place
            self._logger.error('no profile: %s', error)
            return
        self._timer = asyncio.get_running_loop().call_later(
            self._settings.max_seconds, self._stop)
        self._logger.info('profile begun; it ends on SIGUSR1, or after %g s',
                          self._settings.max_seconds)

    def _stop(self) -> None:
        assert self._profile is not None and self._timer is not None
        self._timer.cancel()
        profile, self._profile = self._profile, None
        session = profile.end()
        self._writing = threading.Thread(target=self._write, args=[session], name='profile')
        self._writing.start()

    def _write(self, session: 'Session') -> None:
        stem = f'addrservice-{os.getpid()}-{_utc(session.start_time)}'
        speedscope = Path(self._settings.folder, f'{stem}.speedscope.json')
        html = Path(self._settings.folder, f'{stem}.html')
        try:
            _write_new(speedscope, _as_speedscope(session))
            _write_new(html, _as_html(session))
        except Exception as error:
            self._logger.error('the profile could not be written: %s', error)
        else:
            self._logger.info('profile of %.1f s in %s and %s', session.duration, speedscope, html)


class Stacks:
    """How long each stack was seen.

    :param limit: stacks to tell apart; the outermost frame has the time of all others
    """

    def __init__(self, limit: int = MAX_STACKS) -> None:
        self.seconds: dict[tuple[str, ...], float] = {}
        self.samples = 0
        self._limit = limit

    def add(self, stack: list[str], seconds: float, _: object = None) -> None:
        """One sample: the frames from the outermost inwards, and the time since the last one."""
        self.samples += 1
        place = tuple(stack)
        if place not in self.seconds:
            shown = stack if len(self.seconds) < self._limit else stack[:1]
            place = tuple(map(sys.intern, shown))  # most frames are in many stacks
        self.seconds[place] = self.seconds.get(place, 0.0) + seconds


class _Profile:
    """One profile while it runs; it begins when it is made.

    :param interval: seconds between two samples
    """

    def __init__(self, interval: float) -> None:
        # Only here, because few ever want a profile.
        from pyinstrument.stack_sampler import build_call_stack, get_stack_sampler

        self._interval = interval
        self._stacks = Stacks()
        self._start_stack = build_call_stack(inspect.currentframe(), 'initial', None)
        self._started = time.time()
        self._started_cpu = time.process_time()
        self._sampler: StackSampler = get_stack_sampler()
        # A thread that looks at the clock costs less than a look at it at each call and return.
        self._sampler.subscribe(
            self._stacks.add, desired_interval=interval, use_async_context=False,
            use_timing_thread=True)

    def end(self) -> 'Session':
        """Ends it, and gives all that was seen."""
        from pyinstrument.session import Session

        self._sampler.unsubscribe(self._stacks.add)
        return Session(
            frame_records=_in_tree_order(self._stacks.seconds),
            start_time=self._started,
            duration=time.time() - self._started,
            min_interval=self._interval,
            max_interval=self._interval,
            sample_count=self._stacks.samples,
            start_call_stack=self._start_stack,
            target_description=f'addrservice, process {os.getpid()}',
            cpu_time=time.process_time() - self._started_cpu,
            sys_path=sys.path,
            sys_prefixes=Session.current_sys_prefixes(),
        )


def _in_tree_order(seconds: Mapping[tuple[str, ...], float]) -> list[tuple[list[str], float]]:
    """Side by side what has the same callers: pyinstrument makes one branch only of neighbours."""
    from pyinstrument.frame_info import frame_info_get_identifier

    return sorted(((list(stack), spent) for stack, spent in seconds.items()),
                  key=lambda record: [*map(frame_info_get_identifier, record[0])])


def _as_speedscope(session: 'Session') -> bytes:
    """The profile for https://www.speedscope.app.

    Source of the format: its ``file-format-schema.json``. pyinstrument's own renderer would leave
    out all that took less than a hundredth of the time, which in a service is nearly everything.
    """
    frames = _Frames()
    samples = [[frames.index(info) for info in stack] for stack, _ in session.frame_records]
    weights = [spent for _, spent in session.frame_records]
    return orjson.dumps({
        '$schema': 'https://www.speedscope.app/file-format-schema.json',
        'exporter': 'addrservice',
        'name': session.target_description,
        'shared': {'frames': frames.described},
        'profiles': [{
            'type': 'sampled',
            'name': session.target_description,
            'unit': 'seconds',
            'startValue': 0,
            'endValue': sum(weights),
            'samples': samples,
            'weights': weights,
        }],
    })


class _Frames:
    """The frames of a speedscope file, each once."""

    def __init__(self) -> None:
        self.described: list[dict[str, str | int]] = []
        self._indexes: dict[str, int] = {}

    def index(self, info: str) -> int:
        """The number of a frame as pyinstrument writes it down."""
        from pyinstrument.frame import Frame

        frame = Frame(info)
        name = f'{frame.class_name}.{frame.function}' if frame.class_name else frame.function
        key = f'{name} {frame.identifier}'
        if key not in self._indexes:
            self._indexes[key] = len(self.described)
            self.described.append({
                'name': name, 'file': frame.file_path or '', 'line': frame.line_no or 0})
        return self._indexes[key]


def _as_html(session: 'Session') -> bytes:
    from pyinstrument.renderers import HTMLRenderer

    page: str = HTMLRenderer().render(session)
    return page.encode()


def _utc(seconds: float) -> str:
    """A point in time for a file's name, to the millisecond."""
    return f'{time.strftime("%Y%m%dT%H%M%S", time.gmtime(seconds))}.{int(seconds % 1 * 1000):03}Z'


def _write_new(path: Path, content: bytes) -> None:
    """Writes a file that was not there: nobody else's, and not through a link."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), 'wb') as file:
        file.write(content)
