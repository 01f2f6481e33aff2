"""The way out: spans wait in a queue that cannot grow, and a thread of their own sends them."""

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from typing import Any, Final

import requests
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult

REPORT_INTERVAL: Final = 60.0  # seconds

# Seconds that the thread that sends rests between one piece of its work and the next, unless more
# spans than so many wait. In one piece an export would keep the interpreter from requests for a
# millisecond and a half; with rests, some 1,500 spans are sent in a second.
PAUSE: Final = 0.0005
FEW: Final = 64

# What the SDK says about each export that fails, and about what clients send in tracestate.
_TALKATIVE: Final = (
    'opentelemetry.exporter.otlp.proto.http.trace_exporter',
    'opentelemetry.trace.propagation.tracecontext',
    'opentelemetry.trace.span',
)


class Account:
    """What became of the spans. Tells the log of losses, once a minute at the most.

    :param limit: spans that may wait to be sent
    """

    def __init__(
        self,
        limit: int,
        logger: logging.Logger,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._limit = limit
        self._logger = logger
        self._clock = clock
        self._lock = threading.Lock()
        self._waiting = 0
        self._exported = 0
        self._lost = 0
        self._told = 0  # of those lost
        self._silent_until = -1.0

    def admit(self) -> bool:
        """Whether one more may wait; if not, it is lost."""
        with self._lock:
            admitted = self._waiting < self._limit
            self._waiting += admitted
        if not admitted:
            self._lose(1, f'{self._limit} wait already')
        return admitted

    def has_time(self) -> bool:
        """Whether so few wait, or are being sent, that there is no hurry."""
        return self._waiting <= min(FEW, self._limit // 4)

    def settle(self, count: int, failure: str | None) -> None:
        """Some that have waited are sent now, or lost.

        :param failure: why they are lost
        """
        with self._lock:
            self._waiting -= count
            self._exported += 0 if failure else count
        if failure:
            self._lose(count, failure)

    def _lose(self, count: int, reason: str) -> None:
        with self._lock:
            self._lost += count
            now = self._clock()
            if now < self._silent_until:
                return
            self._silent_until = now + REPORT_INTERVAL
            untold, self._told = self._lost - self._told, self._lost
        self._logger.warning('spans lost: %d; the last: %s', untold, reason)

    def report(self) -> str | None:
        """How it ended; what waits still is lost. None where there was nothing."""
        lost = self._lost + self._waiting
        if not self._exported and not lost:
            return None
        return f'{self._exported} spans exported, {lost} dropped'


class BoundedProcessor(BatchSpanProcessor):
    """Refuses what does not fit the queue, where the SDK's would drop others and log each."""

    def __init__(self, account: Account, exporter: OTLPSpanExporter, **settings: Any) -> None:
        super().__init__(exporter, **settings)
        self._account = account

    def on_end(self, span: ReadableSpan) -> None:
        if self._account.admit():
            super().on_end(span)


class _Unhurried(list[ReadableSpan]):
    """Spans that let requests go on before each of them, and after the last.

    :param rest: does that
    """

    def __init__(self, spans: Sequence[ReadableSpan], rest: Callable[[], None]) -> None:
        super().__init__(spans)
        self._rest = rest

    def __iter__(self) -> Iterator[ReadableSpan]:
        for span in super().__iter__():
            self._rest()
            yield span
        self._rest()


class CountingExporter(OTLPSpanExporter):
    """Sends spans and keeps the account of them; in small pieces, unless many wait."""

    def __init__(
        self,
        account: Account,
        endpoint: str | None,
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        self._attempts = _Session(self._rest)
        super().__init__(
            endpoint=endpoint, timeout=timeout, headers=headers, session=self._attempts)
        self._account = account

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        sent = False
        try:
            result = super().export(_Unhurried(spans, self._rest))
            sent = result is SpanExportResult.SUCCESS
        finally:
            self._account.settle(len(spans), None if sent else self._attempts.failure)
        return result

    def _rest(self) -> None:
        if self._account.has_time():
            time.sleep(PAUSE)


class _Session(requests.Session):
    """Sends one export, once; keeps in mind why the last attempt failed.

    :param rest: lets requests go on
    """

    def __init__(self, rest: Callable[[], None]) -> None:
        super().__init__()
        self._rest = rest
        self.failure = 'it could not be sent'
        self.auth = _as_it_is  # else ~/.netrc would replace what headers-file has
        self.hooks['response'] = [_leave_unread]
        self._prepared: requests.PreparedRequest | None = None
        self._environment: MutableMapping[str, Any] = {}

    def request(  # type: ignore[override]  # what the exporter tells, and no more
        self, method: str, url: str, *, headers: dict[str, str], data: bytes, timeout: float,
        allow_redirects: bool,
    ) -> requests.Response:
        """Sends to the one endpoint that there is; all but the body is made ready once.

        That, with a look into the environment, takes a third of the time of a request; no cookie
        goes back for it.
        """
        if self._prepared is None:
            prepared = self.prepare_request(requests.Request(method, url, headers=headers))
            self._environment = self.merge_environment_settings(
                str(prepared.url), {}, None, None, None)
            self._prepared = prepared
        self._prepared.prepare_body(data, None)
        self._rest()
        return self.send(self._prepared, timeout=timeout, allow_redirects=allow_redirects,
                         **self._environment)

    def send(self, request: requests.PreparedRequest, **options: Any) -> requests.Response:
        try:
            response = super().send(request, **options)
        except Exception as error:
            self.failure = _root_cause(error)
            raise
        if not 200 <= response.status_code < 300:
            self.failure = f'status {response.status_code}'
        if 300 <= response.status_code < 400:  # the SDK would take it for a success
            raise requests.TooManyRedirects(response=response)
        return response


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _leave_unread(response: requests.Response, **_: Any) -> None:
    """Ends the connection, unless there is no body: one may have no end."""
    if response.raw.chunked or response.raw.length_remaining != 0:
        response.close()


def _root_cause(error: BaseException) -> str:
    """What was behind it, without what it was about: a URL may have a secret in it."""
    while (deeper := error.__cause__ or error.__context__) is not None:
        error = deeper
    return str(getattr(error, 'strerror', None) or type(error).__name__)


def _silence_sdk() -> None:
    """Keeps the SDK from a log line per failed export and per odd request."""
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_refuse)


def _let_sdk_speak() -> None:
    """Undoes that."""
    for name in _TALKATIVE:
        logging.getLogger(name).removeFilter(_refuse)


def _refuse(record: logging.LogRecord) -> bool:
    return False


class WayOut:
    """Sends the spans of a provider, from its opening to its closing.

    :param queue: settings of the SDK's ``BatchSpanProcessor``
    :param endpoint: URL to send to; this and the next two are the SDK's where they are None
    :param timeout: seconds in which an export has to be taken
    :param headers: header fields to send along
    :raises ValueError: the SDK refuses what its environment variables say
    """

    def __init__(
        self,
        queue: Mapping[str, int],
        logger: logging.Logger,
        endpoint: str | None,
        timeout: float | None,
        headers: Mapping[str, str] | None,
    ) -> None:
        self._queue = queue
        self._account = Account(queue['max_queue_size'], logger)
        self._exporter = CountingExporter(self._account, endpoint, timeout, headers)

    def open(self, provider: TracerProvider) -> None:
        """Begins to send."""
        _silence_sdk()
        provider.add_span_processor(
            BoundedProcessor(self._account, self._exporter, **self._queue))

    def close(self, provider: TracerProvider) -> None:
        """Sends what waits, however long that takes."""
        provider.shutdown()
        _let_sdk_speak()

    def report(self) -> str | None:
        """How it ended; what waits still is lost. None where there was nothing."""
        return self._account.report()
