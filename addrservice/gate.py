"""Who is let in: those who may, and none of them too often."""

from collections.abc import Mapping, Sequence
from ipaddress import ip_network
from math import ceil
from typing import Final, NamedTuple

from addrservice.auth.abstract import READ, WRITE, AbstractAuthenticator, Caller
from addrservice.config import ServiceSettings
from addrservice.errors import (
    AccessError, AddressBookError, AuthenticatorUnavailableError, ForbiddenError,
    TooManyRequestsError,
)
from addrservice.forwarded import client_address, scheme
from addrservice.throttle import TokenBuckets, address_key, rate_limit_headers

READING: Final = ('GET', 'HEAD')


class Admission(NamedTuple):
    """What became of a request at the gate.

    :param caller: who sends it, where that is known
    :param headers: fields of the answer, whatever that will be
    :param refusal: why it goes no further, if so
    """

    caller: Caller | None = None
    headers: Mapping[str, str] = {}
    refusal: AddressBookError | None = None


class Gate:
    """Lets requests in.

    :param limits: the rate limit and the trusted proxies
    :param authenticator: finds out who asks; None where nobody is asked
    """

    def __init__(
        self, limits: ServiceSettings, authenticator: AbstractAuthenticator | None
    ) -> None:
        self.authenticator = authenticator
        self.trusts_proxies = bool(limits.trusted_proxies)
        self._trusted = [ip_network(network) for network in limits.trusted_proxies]
        rate = limits.rate_limit
        self._buckets = TokenBuckets(rate.requests, rate.seconds) if rate else None

    @property
    def is_open(self) -> bool:
        """Whether everybody may pass, as often as they like."""
        return self.authenticator is None and self._buckets is None

    def origin(
        self, peer: str, spoken: str, forwarded_for: Sequence[str], forwarded_proto: Sequence[str]
    ) -> tuple[str, str]:
        """Address and scheme of a client, as far as trusted proxies tell.

        :param peer: the address at the other end of the connection
        :param spoken: the scheme there
        :param forwarded_for: the values of the ``X-Forwarded-For`` fields
        :param forwarded_proto: the values of the ``X-Forwarded-Proto`` fields
        """
        return (client_address(peer, forwarded_for, self._trusted),
                scheme(peer, forwarded_proto, self._trusted, spoken))

    async def start(self) -> None:
        """Makes ready to find out who asks."""
        if self.authenticator is not None:
            await self.authenticator.start()

    async def stop(self) -> None:
        """Closes what ``start`` opened."""
        if self.authenticator is not None:
            await self.authenticator.stop()

    def reload(self) -> None:
        """Reads anew who may.

        :raises ConfigError: that cannot be used; then what was in force stays in force
        """
        if self.authenticator is not None:
            self.authenticator.reload()

    async def admit(self, authorization: Sequence[str], method: str, address: str) -> Admission:
        """Whether a request goes on.

        :param authorization: the values of all its ``Authorization`` fields
        :param address: of the client, who is counted by it where nobody knows the caller
        """
        caller: Caller | None = None
        refusal: AddressBookError | None = None
        try:
            if self.authenticator is not None:
                caller = await self.authenticator.authenticate(authorization)
                _check_scope(caller, method)
        except (AccessError, AuthenticatorUnavailableError) as error:
            refusal = error
        if self._buckets is None:
            return Admission(caller, {}, refusal)
        key = f'caller {caller.name}' if caller else address_key(address)
        allowance = self._buckets.take(key)
        headers = rate_limit_headers(self._buckets, allowance)
        if not allowance.allowed:
            refusal = TooManyRequestsError(ceil(allowance.reset))
        return Admission(caller, headers, refusal)


def _check_scope(caller: Caller, method: str) -> None:
    scope = READ if method in READING else WRITE
    if scope not in caller.scopes:
        raise ForbiddenError(scope)
