"""The service behind a real nginx: whom a request comes from, in the log and for the rate limit."""

import asyncio
import logging
import ssl
import unittest
from pathlib import Path
from typing import Final

from addrservice import LOGGER_NAME
from addrservice.config import Settings
from addrservice.tracing import AbstractTraceCollector, Span, collecting
from tests.certificates import Authority, new_folder
from tests.nginx import PROGRAM, Nginx
from tests.postgresql import free_port
from tests.support import make_settings
from tests.wire import Answer, Connection, Lines, WireTestCase, request

# Addresses of this machine: of the proxies, and of clients.
INNER: Final = '127.0.0.1'
OUTER: Final = '127.0.0.4'
ANN: Final = '127.0.0.2'
BOB: Final = '127.0.0.3'

HTTP: Final = '''
upstream service {{ server 127.0.0.1:{service}; keepalive 2; }}
proxy_http_version 1.1;
proxy_set_header Connection "";
proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
proxy_set_header X-Forwarded-Proto $scheme;
server {{
    listen 127.0.0.1:{{port}};
    listen [::1]:{{port}};
    location / {{ proxy_pass http://service; }}
}}
server {{
    listen 127.0.0.1:{outer};
    location / {{ proxy_bind {address}; proxy_pass http://127.0.0.1:{{port}}; }}
}}
server {{
    listen 127.0.0.1:{tls} ssl;
    ssl_certificate {certificate};
    ssl_certificate_key {key};
    location / {{ proxy_pass http://service; }}
}}
'''

HEALTH: Final = '/healthz'


class Schemes(AbstractTraceCollector):
    """Keeps the scheme of each request."""

    def __init__(self) -> None:
        self.schemes: list[object] = []

    def enter(self, span: Span) -> None:
        """Waits for the end."""

    def exit(self, span: Span) -> None:
        if span.kind == 'server':
            self.schemes.append(span.attributes['url.scheme'])


@unittest.skipUnless(Path(PROGRAM).exists(), 'nginx is not installed')
class NginxTest(WireTestCase):
    """One nginx before the service, and another before that; the service trusts both."""

    def make_settings(self) -> Settings:
        return make_settings(trusted_proxies=[INNER, f'{OUTER}/32'],
                             rate_limit={'requests': 2, 'seconds': 600})

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.authority = Authority(new_folder(self))
        certificate, key = self.authority.issue('nginx')
        self.outer, self.tls = free_port(), free_port()
        http = HTTP.format(service=self.port, outer=self.outer, tls=self.tls, address=OUTER,
                           certificate=certificate, key=key)
        self.nginx = await asyncio.to_thread(self.enterContext, Nginx(http))
        self.addCleanup(lambda: self.assertEqual('', self.nginx.errors()))

    async def ask(
        self,
        source: str,
        port: int,
        *fields: str,
        method: str = 'GET',
        path: str = HEALTH,
        tls: ssl.SSLContext | None = None,
    ) -> Answer:
        """The answer to a client at an address of this machine, on a connection of its own."""
        host = '::1' if ':' in source else '127.0.0.1'
        connection = Connection(*await asyncio.open_connection(
            host, port, local_addr=(source, 0), ssl=tls))
        answer = await connection.exchange(request(method, path, *fields))
        await connection.close()
        return answer

    def remotes(self, logged: Lines) -> list[str]:
        return [line['remote'] for line in logged.requests()]

    async def test_the_log_tells_whom_a_request_comes_from(self) -> None:
        with self.logged() as logged:
            await self.ask(ANN, self.nginx.port)
            await self.ask('::1', self.nginx.port)
            await self.ask(BOB, self.outer)
        self.assertEqual([ANN, '::1', BOB], self.remotes(logged))

    async def test_so_it_does_whatever_becomes_of_the_request(self) -> None:
        with self.logged() as logged:
            for method, path in (('BREW', HEALTH), ('PUT', '/addressbook'), ('GET', '/nowhere')):
                await self.ask(ANN, self.nginx.port, path=path, method=method)
        self.assertEqual([ANN] * 3, self.remotes(logged))

    async def test_what_a_client_makes_up_is_not_believed(self) -> None:
        forged = 'X-Forwarded-For: 192.0.2.1, 127.0.0.1'
        with self.logged() as logged:
            await self.ask(ANN, self.nginx.port, forged)
            await self.ask(ANN, self.outer, forged)
            await self.ask(BOB, self.port, forged)
            await self.ask(BOB, self.port, 'X-Real-IP: 192.0.2.1')
        self.assertEqual([ANN, ANN, BOB, BOB], self.remotes(logged))

    async def test_clients_that_share_a_connection_of_the_proxy_are_told_apart(self) -> None:
        with self.logged() as logged:
            for client in (ANN, BOB, INNER, ANN):
                await self.ask(client, self.nginx.port)
            self.assertEqual(1, len(self.server.connections))
        self.assertEqual([ANN, BOB, INNER, ANN], self.remotes(logged))

    async def test_each_client_behind_the_proxy_has_a_limit_of_its_own(self) -> None:
        async def statuses(client: str, port: int, *fields: str) -> list[int]:
            return [(await self.ask(client, port, *fields, path='/addressbook')).status
                    for _ in range(3)]

        self.assertEqual([200, 200, 429], await statuses(ANN, self.nginx.port))
        self.assertEqual([429] * 3, await statuses(ANN, self.outer, 'X-Forwarded-For: 192.0.2.1'))
        self.assertEqual([200, 200, 429], await statuses(BOB, self.nginx.port))
        self.assertEqual(
            [200, 200, 429], await statuses(OUTER, self.port, 'X-Forwarded-For: 192.0.2.1'))

    async def test_the_addresses_that_one_ipv6_client_may_have_share_a_limit(self) -> None:
        statuses = [
            (await self.ask(INNER, self.port, f'X-Forwarded-For: 2001:db8::{number}',
                            path='/addressbook')).status for number in range(3)]
        self.assertEqual([200, 200, 429], statuses)

    async def test_the_scheme_is_that_which_the_client_has_used(self) -> None:
        trust = ssl.create_default_context(cafile=self.authority.certificate)
        schemes = Schemes()
        with collecting([schemes], logging.getLogger(LOGGER_NAME)):
            await self.ask(ANN, self.tls, tls=trust)
            await self.ask(ANN, self.nginx.port, 'X-Forwarded-Proto: https')
            await self.ask(ANN, self.port, 'X-Forwarded-Proto: https')
            await self.ask(INNER, self.port, 'X-Forwarded-Proto: https')
        self.assertEqual(['https', 'http', 'http', 'https'], schemes.schemes)


if __name__ == '__main__':
    unittest.main()
