"""Where the figures are: in this process alone, or in files that several workers share.

The library keeps the figures of several processes in mapped files, one set per process. Here a set
belongs to a worker's slot, not to its process id: the worker that replaces another goes on counting
where that one was killed, and a thousand restarts leave no more files than one.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import orjson
from prometheus_client import CollectorRegistry, Metric, values
from prometheus_client.multiprocess import MultiProcessCollector

from addrservice.collectors.prometheus.exemplars import Newest

FOLDER_VARIABLE: Final = 'PROMETHEUS_MULTIPROC_DIR'  # the library's
SLOT_VARIABLE: Final = 'ADDRSERVICE_WORKER_SLOT'


class Figures(ABC):
    """The figures of the service.

    :cvar registry: lists the metrics of this process
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    @abstractmethod
    def use(self) -> None:
        """Has the library keep here the values of all metrics that are declared from now on."""

    @abstractmethod
    def begin(self) -> int:
        """This process begins to count. Gives how many have ended without a word before it."""

    @abstractmethod
    def end(self) -> None:
        """This process has counted what there was to count."""

    @abstractmethod
    def collect(self) -> Iterable[Metric]:
        """The figures of all workers."""

    @abstractmethod
    def pids(self) -> list[int]:
        """The processes that count."""

    @abstractmethod
    def share_exemplars(self, exemplars: Newest) -> None:
        """Shows the other workers the exemplars of this one."""

    @abstractmethod
    def exemplars(self) -> Iterable[Newest]:
        """Those that were shared, worker by worker."""


def find_figures() -> Figures:
    """Where this process keeps its figures, from the environment that its supervisor has set.

    :raises ValueError: nothing can be written there
    """
    if FOLDER_VARIABLE not in os.environ or SLOT_VARIABLE not in os.environ:
        return OwnFigures()
    folder = Path(os.environ[FOLDER_VARIABLE])
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f'{FOLDER_VARIABLE}: no files can be written in {folder}')
    return SharedFigures(folder, int(os.environ[SLOT_VARIABLE]))


class OwnFigures(Figures):
    """The figures of one process, in its memory."""

    def use(self) -> None:
        values.ValueClass = values.MutexValue

    def begin(self) -> int:
        return 0

    def end(self) -> None:
        """Nothing: they end with the process."""

    def collect(self) -> Iterable[Metric]:
        return self.registry.collect()

    def pids(self) -> list[int]:
        return [os.getpid()]

    def share_exemplars(self, exemplars: Newest) -> None:
        """Nothing: there is nobody to see them."""

    def exemplars(self) -> Iterable[Newest]:
        return ()


class SharedFigures(Figures):
    """The figures of several workers, in a folder.

    :param folder: of all workers of a service, and of no others
    :param slot: a number that no other live worker has
    """

    def __init__(self, folder: Path, slot: int) -> None:
        super().__init__()
        self._folder = folder
        self._slot = slot
        self._pid_file = folder / f'pid_{slot}'
        self._exemplars_file = folder / f'exemplars_{slot}.json'
        self._shared = orjson.dumps({})

    def use(self) -> None:
        for path in self._folder.glob(f'gauge_*_{self._slot}.db'):
            path.unlink()  # of the worker before: what it was doing has ended with it
        # The library has no types here.
        values.ValueClass = values.MultiProcessValue(  # type: ignore[no-untyped-call]
            lambda: self._slot)

    def begin(self) -> int:
        crashed = sum(_remove(path) for path in self._folder.glob('pid_*') if not _live_pid(path))
        _replace(self._pid_file, str(os.getpid()).encode())
        return crashed

    def end(self) -> None:
        _remove(self._pid_file)

    def collect(self) -> Iterable[Metric]:
        files = sorted(map(str, self._files()))
        # The library has no types here.
        merged: Iterable[Metric] = MultiProcessCollector.merge(  # type: ignore[no-untyped-call]
            files)
        return sorted(merged, key=lambda metric: metric.name)

    def _files(self) -> Iterator[Path]:
        """All files of figures; of what the workers are doing, those of live ones."""
        live = {path.name.removeprefix('pid_') for path in self._folder.glob('pid_*')
                if _live_pid(path)}
        for path in self._folder.glob('*.db'):
            kind, *_, slot = path.stem.split('_')
            if (kind != 'gauge' or slot in live) and _size(path):
                yield path

    def pids(self) -> list[int]:
        return [pid for path in self._folder.glob('pid_*') if (pid := _live_pid(path))]

    def share_exemplars(self, exemplars: Newest) -> None:
        content = orjson.dumps(exemplars)
        if content != self._shared:
            _replace(self._exemplars_file, content)
            self._shared = content

    def exemplars(self) -> Iterable[Newest]:
        return [_read_json(path) for path in self._folder.glob('exemplars_*.json')]


def _live_pid(path: Path) -> int:
    """The process that a file names, 0 where it has ended."""
    try:
        pid = int(path.read_bytes())
        os.kill(pid, 0)  # no signal: only asks whether it is there
    except OSError:  # it is not, or its file has gone meanwhile
        return 0
    return pid


def _replace(path: Path, content: bytes) -> None:
    """Writes a file that others never see half of."""
    new = path.with_name(f'new_{path.name}')
    new.write_bytes(content)
    new.replace(path)


def _remove(path: Path) -> bool:
    """Removes a file; tells whether it was there, and not gone by another's hand."""
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    return True


def _size(path: Path) -> int:
    """Bytes of a file: 0 where it was made or removed just now, by a worker that begins."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _read_json(path: Path) -> Any:
    return orjson.loads(path.read_bytes())
