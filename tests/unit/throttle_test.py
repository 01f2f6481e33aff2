"""Token buckets: what they grant, what they forget, and what the header fields tell of them."""

import unittest
from unittest import mock

from addrservice.throttle import Allowance, TokenBuckets, address_key, rate_limit_headers


class TokenBucketsTest(unittest.TestCase):
    """Four requests in two seconds: one comes back each half second."""

    def setUp(self) -> None:
        self.now = 1000.0
        self.buckets = TokenBuckets(4, 2, clock=lambda: self.now)

    def take(self, times: int, key: str = 'a') -> list[bool]:
        return [self.buckets.take(key).allowed for _ in range(times)]

    def test_as_many_as_the_limit_are_granted_at_once(self) -> None:
        self.assertEqual([True, True, True, True, False, False], self.take(6))

    def test_one_more_is_granted_after_its_share_of_the_time(self) -> None:
        self.take(4)
        self.now += 0.49
        self.assertEqual([False], self.take(1))
        self.now += 0.02
        self.assertEqual([True, False], self.take(2))

    def test_asking_in_vain_costs_nothing(self) -> None:
        self.take(4)
        for _ in range(5):
            self.now += 0.1
            granted = self.buckets.take('a').allowed
        self.assertTrue(granted)

    def test_a_long_rest_saves_up_no_more_than_the_limit(self) -> None:
        self.take(4)
        self.now += 1000
        self.assertEqual([True, True, True, True, False], self.take(5))

    def test_each_has_a_bucket_of_its_own(self) -> None:
        self.take(4)
        self.assertEqual([True, True, True, True, False], self.take(5, 'b'))

    def test_an_allowance_tells_what_is_left_and_when_there_is_one_more(self) -> None:
        self.assertEqual(Allowance(True, 3, 0.5), self.buckets.take('a'))
        self.now += 0.25
        self.assertEqual(Allowance(True, 2, 0.25), self.buckets.take('a'))
        self.take(2)
        self.assertEqual(Allowance(False, 0, 0.25), self.buckets.take('a'))

    def test_the_bucket_that_was_not_used_for_the_longest_time_is_forgotten(self) -> None:
        with mock.patch('addrservice.throttle.MAX_BUCKETS', 2):
            self.take(4, 'a')
            self.take(4, 'b')
            self.take(1, 'a')
            self.take(4, 'c')
        self.assertEqual([False], self.take(1, 'a'))
        self.assertEqual([True], self.take(1, 'b'))

    def test_ten_thousand_are_kept(self) -> None:
        for number in range(10_001):
            self.take(4 if number < 2 else 1, str(number))
        self.assertEqual([False], self.take(1, '1'))
        self.assertEqual([True], self.take(1, '0'))


class RateLimitHeadersTest(unittest.TestCase):
    """What a client is told."""

    def test_the_limit_and_what_is_left_of_it_are_structured_fields(self) -> None:
        buckets = TokenBuckets(100, 60, clock=lambda: 0)
        self.assertEqual(
            {'RateLimit-Policy': '"default";q=100;w=60', 'RateLimit': '"default";r=99;t=1'},
            rate_limit_headers(buckets, buckets.take('a')))

    def test_times_are_whole_seconds_and_never_too_short(self) -> None:
        headers = rate_limit_headers(TokenBuckets(1, 1.5), Allowance(False, 0, 1.01))
        self.assertEqual(
            {'RateLimit-Policy': '"default";q=1;w=2', 'RateLimit': '"default";r=0;t=2'}, headers)


class AddressKeyTest(unittest.TestCase):
    """Whose bucket an address is."""

    def test_an_ipv4_address_has_one(self) -> None:
        for address in ('192.0.2.1', '::ffff:192.0.2.1'):
            self.assertEqual(address, address_key(address))

    def test_the_ipv6_addresses_that_one_client_may_have_share_one(self) -> None:
        keys = {address_key(address) for address in (
            '2001:db8:0:7::1', '2001:db8:0:7:ffff:ffff:ffff:ffff', '2001:db8:0:7::1%eth0')}
        self.assertEqual({'2001:db8:0:7::/64'}, keys)
        self.assertNotIn(address_key('2001:db8:0:8::1'), keys)
