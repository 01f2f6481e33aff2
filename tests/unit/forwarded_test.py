"""Where a request comes from: whose word is taken for it, and how far."""

import unittest
from ipaddress import ip_network

from addrservice.forwarded import client_address, scheme

TRUSTED = [ip_network('10.0.0.0/8'), ip_network('fd00::/8')]


class ClientAddressTest(unittest.TestCase):
    """The proxies are in 10.0.0.0/8 and fd00::/8."""

    def check(self, client: str, peer: str, *forwarded_for: str) -> None:
        self.assertEqual(client, client_address(peer, forwarded_for, TRUSTED))

    def test_who_is_not_trusted_is_the_client_whatever_is_told(self) -> None:
        self.check('192.0.2.1', '192.0.2.1')
        self.check('192.0.2.1', '192.0.2.1', '198.51.100.1')
        self.check('192.0.2.1', '192.0.2.1', '10.0.0.1')

    def test_a_proxy_tells_who_the_client_is(self) -> None:
        self.check('192.0.2.1', '10.0.0.1', '192.0.2.1')
        self.check('2001:db8::1', 'fd00::1', '2001:DB8::0001')

    def test_a_proxy_that_tells_nothing_is_the_client(self) -> None:
        for nothing in ([], [''], [' , ']):
            self.check('10.0.0.1', '10.0.0.1', *nothing)

    def test_what_the_client_has_told_the_proxy_is_not_believed(self) -> None:
        self.check('192.0.2.1', '10.0.0.1', '198.51.100.1, 192.0.2.1')
        self.check('192.0.2.1', '10.0.0.1', '10.0.0.7, 198.51.100.1, 192.0.2.1')

    def test_a_chain_of_proxies_is_walked_to_its_beginning(self) -> None:
        self.check('192.0.2.1', '10.0.0.1', '198.51.100.1, 192.0.2.1, fd00::3,10.0.0.2')

    def test_fields_and_their_members_are_one_list(self) -> None:
        self.check('192.0.2.1', '10.0.0.1', '198.51.100.1', '192.0.2.1 , 10.0.0.3', '\t10.0.0.2,')

    def test_where_all_are_trusted_the_first_is_the_client(self) -> None:
        self.check('10.0.0.3', '10.0.0.1', '10.0.0.3, 10.0.0.2')

    def test_the_walk_ends_at_what_is_no_address(self) -> None:
        for odd in ('unknown', '_hidden', '10.0.0.256', '010.0.0.1', 'localhost', '1.2.3.4:x',
                    '[::1', '192.0.2.1 198.51.100.1', '"192.0.2.1"', '10.0.0.0/8'):
            with self.subTest(odd):
                self.check('10.0.0.2', '10.0.0.1', f'192.0.2.1, {odd}, 10.0.0.2')

    def test_a_port_is_left_out(self) -> None:
        self.check('192.0.2.1', '10.0.0.1', '192.0.2.1:40000')
        self.check('2001:db8::1', '10.0.0.1', '[2001:db8::1]:40000')
        self.check('2001:db8::1', '10.0.0.1', '[2001:db8::1]')

    def test_a_zone_is_left_out(self) -> None:
        self.check('fe80::1', 'fe80::1%eth0')
        self.check('fe80::1', '10.0.0.1', 'fe80::1%25"\n')

    def test_an_ipv4_address_in_an_ipv6_one_is_one(self) -> None:
        self.check('192.0.2.1', '::ffff:10.0.0.1', '::ffff:192.0.2.1')

    def test_what_is_at_the_other_end_of_a_unix_socket_is_not_trusted(self) -> None:
        self.check('', '', '192.0.2.1')

    def test_without_proxies_nobody_is_trusted(self) -> None:
        self.assertEqual('10.0.0.1', client_address('10.0.0.1', ['192.0.2.1'], []))


class SchemeTest(unittest.TestCase):
    """Whether the client has used HTTP or HTTPS."""

    def check(self, expected: str, peer: str, *forwarded_proto: str) -> None:
        self.assertEqual(expected, scheme(peer, forwarded_proto, TRUSTED, 'http'))

    def test_a_proxy_tells_it(self) -> None:
        self.check('https', '10.0.0.1', 'https')
        self.check('https', '10.0.0.1', 'HTTPS')
        self.assertEqual('http', scheme('10.0.0.1', ['http'], TRUSTED, 'https'))

    def test_who_is_not_trusted_does_not(self) -> None:
        self.check('http', '192.0.2.1', 'https')
        self.check('http', '', 'https')

    def test_the_last_word_is_that_of_the_proxy(self) -> None:
        self.check('https', '10.0.0.1', 'http, https')
        self.check('http', '10.0.0.1', 'https', 'http')

    def test_anything_else_tells_nothing(self) -> None:
        for odd in ([], [''], ['ftp'], ['https, javascript']):
            self.check('http', '10.0.0.1', *odd)
