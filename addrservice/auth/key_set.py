"""The public keys of an authorization server, as they were when they could last be read.

They are read anew in the background now and then, and when a token names a key that is not there.
Reading happens in a thread; the event loop never waits for it.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from logging import Logger
from typing import Final, NamedTuple, TypeVar

import jwt

from addrservice.auth.jwks import KeysError, is_url, make_reader, parse_keys
from addrservice.errors import AuthenticatorUnavailableError, ConfigError

T = TypeVar('T')

# Tokens that wait for a key at once. Anybody can make up ids of keys: while the server hangs, not
# all that the service can work on at once shall be that.
MAX_WAITING: Final = 100


class Pace(NamedTuple):
    """How often keys are read. All in seconds.

    :param lifetime: between two readings in the background
    :param retry: in the place of that, after one that failed
    :param pause: between two readings for keys that tokens name and that are not there
    :param deadline: that one may take
    """

    lifetime: float = 300
    retry: float = 15
    pause: float = 60
    deadline: float = 5


class KeySet:
    """The keys at one place.

    :param location: a path, or a URL in https, or in http on this machine
    :param algorithms: of ``jwks.ALGORITHMS``, those that may sign
    :raises ValueError: the location is none of these
    :raises ConfigError: it is a file that cannot be used
    """

    def __init__(
        self, location: str, algorithms: Sequence[str], pace: Pace, logger: Logger
    ) -> None:
        self._location = location
        self._algorithms = algorithms
        self._pace = pace
        self._logger = logger
        self._name, self._read = make_reader(location, pace.deadline)
        self._reading: asyncio.Task[bool] | None = None
        self._refreshing: asyncio.Task[None] | None = None
        self._looked: float | None = None  # when a key was last looked for that was not there
        self._waiting = 0
        self._keys = [] if is_url(location) else self._load()

    async def start(self) -> None:
        """Reads the keys, if that can be done in time, and goes on doing so now and then."""
        read = await self._refresh()
        self._refreshing = asyncio.create_task(self._keep_fresh(read))

    async def stop(self) -> None:
        """Reads them no more; a reading that goes on is left to itself."""
        tasks = [task for task in (self._refreshing, self._reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def reload(self) -> None:
        """Reads a file here and now; begins to read a URL.

        :raises ConfigError: the file cannot be used; then the keys read before stay
        """
        if is_url(self._location):
            self._refresh()
        else:
            self._keys = self._load()

    async def find(self, algorithm: str, kid: str | None) -> jwt.PyJWK | None:
        """The key of that id, or the only one there is if a token names none; None if in doubt.

        :raises AuthenticatorUnavailableError: no keys could be read up to now, or too many wait
        """
        if not self._keys:
            raise AuthenticatorUnavailableError('no keys could be read up to now')
        key = self._pick(algorithm, kid)
        if key is None and self._may_look():
            await self._look()
            key = self._pick(algorithm, kid)
        return key

    async def _look(self) -> None:
        if self._waiting >= MAX_WAITING:
            raise AuthenticatorUnavailableError('too many tokens wait for a key')
        self._waiting += 1
        try:
            await self._refresh()
        finally:
            self._waiting -= 1

    def _pick(self, algorithm: str, kid: str | None) -> jwt.PyJWK | None:
        fitting = [key for key in self._keys
                   if key.algorithm_name == algorithm and kid in (None, key.key_id)]
        return fitting[0] if len(fitting) == 1 else None

    def _may_look(self) -> bool:
        """Whether it is time to look for a key; while somebody is at it, others may join in."""
        if self._is_reading():
            return True
        now = time.monotonic()
        if self._looked is not None and now < self._looked + self._pace.pause:
            return False
        self._looked = now
        return True

    def _is_reading(self) -> bool:
        return self._reading is not None and not self._reading.done()

    def _refresh(self) -> 'asyncio.Future[bool]':
        """Begins to read the keys, unless somebody is at it; gives whether they could be read.

        Who waits for it may be cancelled without harm to the others.
        """
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._take())
        return asyncio.shield(self._reading)

    async def _keep_fresh(self, read: bool) -> None:
        while True:
            await asyncio.sleep(self._pace.lifetime if read else self._pace.retry)
            read = await self._refresh()

    async def _take(self) -> bool:
        try:
            async with asyncio.timeout(self._pace.deadline):
                self._keys = await _in_thread(self._fetch)
        except TimeoutError:
            self._warn(f'no answer in {self._pace.deadline} s')
        except KeysError as error:
            self._warn(str(error))
        except Exception:  # a bug, which must not end the readings to come
            self._logger.exception('cannot read the keys at %s', self._name)
        else:
            return True
        return False

    def _warn(self, reason: str) -> None:
        kept = 'those read before stay in force' if self._keys else 'there are none yet'
        self._logger.warning('cannot read the keys at %s: %s; %s', self._name, reason, kept)

    def _load(self) -> list[jwt.PyJWK]:
        try:
            return self._fetch()
        except KeysError as error:
            raise ConfigError(f'{self._name}: {error}') from None

    def _fetch(self) -> list[jwt.PyJWK]:
        return parse_keys(self._read(), self._algorithms)


async def _in_thread(call: Callable[[], T]) -> T:
    """What a call gives that may take its time, in a thread that no end of the process awaits."""
    outcome: Future[T] = Future()
    outcome.set_running_or_notify_cancel()  # from here on it does not go with who awaits it

    def run() -> None:
        try:
            outcome.set_result(call())
        except Exception as error:
            outcome.set_exception(error)

    threading.Thread(target=run, name='jwks', daemon=True).start()
    return await asyncio.wrap_future(outcome)
