"""What operators and their orchestrators ask: the probes, and the metrics."""

import asyncio
from collections.abc import Sequence
from http import HTTPStatus

import orjson
from tornado.web import HTTPError

from addrservice.base_handler import BaseRequestHandler
from addrservice.tracing import AbstractTraceCollector


class HealthRequestHandler(BaseRequestHandler):
    """Whether the process lives; never asks the store."""

    is_vital = True

    def get(self) -> None:
        self.write(orjson.dumps({'uptime': self.service.uptime_millis()}))

    head = get


class ReadinessRequestHandler(BaseRequestHandler):
    """Whether requests should be sent here."""

    is_vital = True

    async def get(self) -> None:
        status = await self.service.status()
        if not status.ready:
            self._set_error_headers(HTTPStatus.SERVICE_UNAVAILABLE)
            self.set_status(HTTPStatus.SERVICE_UNAVAILABLE)
        self.write(orjson.dumps(status._asdict()))

    head = get


class MetricsRequestHandler(BaseRequestHandler):
    """What the collectors tell a scraper."""

    produces_json = False
    is_vital = True

    async def get(self) -> None:
        collectors: Sequence[AbstractTraceCollector] = self.settings['collectors']
        accept = self.request.headers.get('Accept', '')
        for collector in collectors:
            # In a thread, for several processes leave their figures in files.
            exposed = await asyncio.to_thread(collector.expose, accept)
            if exposed is not None:
                self.set_header('Content-Type', exposed[0])
                self.write(exposed[1])
                return
        raise HTTPError(HTTPStatus.NOT_FOUND, 'No collector has metrics to tell')

    head = get
