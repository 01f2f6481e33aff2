"""How often somebody may ask: a token bucket for each, and the header fields that tell."""

import time
from collections import OrderedDict
from collections.abc import Callable
from ipaddress import IPv6Address, ip_address, ip_network
from math import ceil
from typing import Final, NamedTuple

# Buckets that are kept. The one that was used the longest ago is forgotten for a further one:
# most likely it has become full meanwhile, and a full one is as good as none.
MAX_BUCKETS: Final = 10_000

# One client has as many IPv6 addresses as it likes, all in a network of this size (RFC 6177).
IPV6_PREFIX: Final = 64


class Allowance(NamedTuple):
    """What became of the wish to ask.

    :param allowed: whether it is granted
    :param remaining: further ones that would be granted now
    :param reset: seconds until there is one more, above 0
    """

    allowed: bool
    remaining: int
    reset: float


class TokenBuckets:
    """Grants requests to each of many; what was used up comes back bit by bit.

    :param requests: that are granted at once
    :param seconds: in which as many come back
    :param clock: the time in seconds, which never goes back
    """

    def __init__(
        self, requests: int, seconds: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.requests = requests
        self.seconds = seconds
        self._clock = clock
        # Key -> tokens that were left and when that was; in the order of their last use.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, key: str) -> Allowance:
        """Takes a token out of somebody's bucket, if there is one."""
        now = self._clock()
        left, since = self._buckets.pop(key, (self.requests, now))
        tokens = min(self.requests, left + (now - since) * self.requests / self.seconds)
        allowed = tokens >= 1
        tokens -= allowed
        self._buckets[key] = tokens, now
        if len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        remaining = int(tokens)
        return Allowance(allowed, remaining, (remaining + 1 - tokens) * self._pause)

    @property
    def _pause(self) -> float:
        """Seconds in which one token comes back."""
        return self.seconds / self.requests


def rate_limit_headers(buckets: TokenBuckets, allowance: Allowance) -> dict[str, str]:
    """Header fields that tell what the limit is and what is left of it.

    They are structured fields (RFC 9651) as in draft-ietf-httpapi-ratelimit-headers. That knows
    whole seconds only: they are rounded up, so that nobody asks too soon.
    """
    return {
        'RateLimit-Policy': f'"default";q={buckets.requests};w={ceil(buckets.seconds)}',
        'RateLimit': f'"default";r={allowance.remaining};t={ceil(allowance.reset)}',
    }


def address_key(address: str) -> str:
    """Whose bucket it is, where all that is known of somebody is an IP address."""
    parsed = ip_address(address)
    if isinstance(parsed, IPv6Address) and parsed.ipv4_mapped is None:
        return str(ip_network((int(parsed), IPV6_PREFIX), strict=False))
    return address
