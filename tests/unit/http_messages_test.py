"""Requests as httptools reads them: whole, in pieces, and what is none."""

import unittest
from typing import Final

from tornado.httputil import HTTPInputError

from addrservice.http_server import messages
from addrservice.http_server.messages import PIECE, HeadTooLargeError, Message, MessageParser

LIMIT: Final = 2 * PIECE  # bytes of a head

GET: Final = b'GET /x HTTP/1.1\r\nHost: a\r\nX: 1\r\nX: 2\r\n\r\n'
POST: Final = b'POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc'
CHUNKED: Final = (b'PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n'
                  b'1\r\na\r\n2;x=y\r\nbc\r\n0\r\n\r\n')
UPGRADE: Final = b'Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n'
UNKNOWN: Final = b'BREW /x HTTP/1.1\r\nHost: a\r\n\r\n'
RTSP: Final = GET.replace(b'GET', b'DESCRIBE')


def read(*pieces: bytes) -> list[Message]:
    """The requests in some bytes."""
    parser = MessageParser(LIMIT)
    for piece in pieces:
        parser.feed(piece)
    return parser.messages


def described(messages: list[Message]) -> list[object]:
    """All that is known of requests, however they have come."""
    return [(each.start_line, sorted(each.headers.get_all()), b''.join(each.chunks), each.complete,
             each.keep_alive) for each in messages]


def singly(data: bytes) -> list[bytes]:
    return [data[at:at + 1] for at in range(len(data))]


class ReadingTest(unittest.TestCase):
    """What is read."""

    def test_a_request_is_the_same_in_however_many_pieces_it_comes(self) -> None:
        for data in (GET, POST, CHUNKED, b'\r\n' + GET, GET * 2, POST + CHUNKED + GET, UNKNOWN,
                     POST.replace(b'Host', UPGRADE + b'Host'), GET.replace(b'1.1', b'1.0'),
                     CHUNKED.replace(b'Host', UPGRADE + b'Host') + GET,
                     b'\r\n' + RTSP + POST, POST.replace(b'POST', b'BREW') + GET,
                     CHUNKED.replace(b'PUT', b'SETUP') + POST + GET,
                     CHUNKED.replace(b'PUT /x', b'Q* /x').replace(b'Host', UPGRADE + b'Host'),
                     GET.replace(b'Host', UPGRADE + b'Host') * 2):
            whole = described(read(data))
            self.assertTrue(whole)
            self.assertEqual(whole, described(read(*singly(data))))
            for cut in range(len(data)):
                with self.subTest(data, cut=cut):
                    self.assertEqual(whole, described(read(data[:cut], data[cut:])))

    def test_fields_are_joined_and_stripped(self) -> None:
        [message] = read(GET.replace(b'X: 1', b'x:\t 1 \t'))
        self.assertEqual(('1,2', ['1', '2']), (
            message.headers.get('X'), message.headers.get_list('X')))
        self.assertEqual('none', message.headers.get('Y', 'none'))

    def test_fields_that_come_again_and_again_are_joined_once(self) -> None:
        """Else the time that they take would be that of their number squared."""
        parser = MessageParser(LIMIT)
        parser.feed(GET[:-2] + b'X: 3\r\nY: 1\r\n')
        self.assertEqual('1', parser._headers._combined_cache['X'])
        parser.feed(b'\r\n')
        [message] = parser.messages
        self.assertEqual(('1,2,3', '1'), (message.headers.get('X'), message.headers.get('Y')))

    def test_what_is_kept_of_names_is_bounded(self) -> None:
        names = messages._NAMES
        for size in range(1, PIECE - 100, 500):
            [message] = read(GET.replace(b'X: 1', b'a' * size + b': 1'))
            self.assertEqual('1', message.headers.get('A' + 'a' * (size - 1)))
        for number in range(2 * messages.MAX_NAMES):
            self.assertEqual(f'A{number}', names[b'a%d' % number])
        self.assertLessEqual(len(names), messages.MAX_NAMES)
        self.assertLessEqual(max(map(len, names)), messages.LONGEST_NAME)

    def test_an_empty_field_is_no_part_of_the_next_ones_name(self) -> None:
        [message] = read(*singly(GET.replace(b'X: 1', b'A:\r\nB: ')))
        self.assertEqual(('', ''), (message.headers.get('A'), message.headers.get('B')))

    def test_the_body_of_a_request_for_an_upgrade_is_never_taken_for_a_request(self) -> None:
        for body in (b'Content-Length: %d\r\n\r\n%b' % (len(GET), GET),
                     b'Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n' % (len(GET), GET)):
            for line in (b'POST /x HTTP/1.1', b'CONNECT a:1 HTTP/1.1'):
                with self.subTest(line):
                    first, second = read(line + b'\r\nHost: a\r\n' + UPGRADE + body + GET)
                    self.assertEqual([GET], first.chunks)
                    self.assertEqual(GET[:6], f'{second.start_line.method} /x'.encode())

    def test_requests_for_upgrades_by_the_piece_are_read(self) -> None:
        upgrade = b'CONNECT a:1 HTTP/1.1\r\n\r\n'
        number = PIECE // len(upgrade)
        self.assertEqual(number, len(read(upgrade * number)))

    def test_a_request_has_begun_until_it_is_whole(self) -> None:
        for data in (GET, POST, CHUNKED, UNKNOWN):
            parser = MessageParser(LIMIT)
            for piece in singly(data[:-1]):
                parser.feed(piece)
                self.assertTrue(parser.in_message)
            parser.feed(data[-1:])
            self.assertFalse(parser.in_message)


class RefusalTest(unittest.TestCase):
    """What is no request, and what is too large for one."""

    def assert_refused(self, *pieces: bytes) -> None:
        with self.assertRaises(HTTPInputError):
            read(*pieces)

    def test_what_could_be_read_in_two_ways_is_refused(self) -> None:
        for wrong in (
            POST.replace(b'Host', b'Transfer-Encoding: chunked\r\nHost'),
            CHUNKED.replace(b'chunked', b'gzip, chunked'), CHUNKED.replace(b'chunked', b'gzip'),
            CHUNKED.replace(b'chunked', b'chunked, chunked'),
            CHUNKED.replace(b'HTTP/1.1', b'HTTP/1.0'),
            CHUNKED.replace(b'chunked', b'chunked\r\nTransfer-Encoding: chunked'),
            CHUNKED[:-2] + b'X: y\r\n\r\n', CHUNKED.replace(b'1\r\n', b'1\n'),
            CHUNKED.replace(b'bc\r\n', b'bc'), CHUNKED.replace(b'1\r\n', b'1 \r\n'),
            POST.replace(b'Host', b'Content-Length: 4\r\nHost'), POST.replace(b': 3', b' : 3'),
            POST.replace(b': 3', b': +3'), POST.replace(b': 3', b': 3, 3'), GET.replace(b'\r', b''),
            GET.replace(b'X: 2\r\n', b'X: 2\n'), GET.replace(b'X: 1\r\n', b'X: 1\r\n '),
            GET.replace(b'X: 1\r\n', b'X: 1\r'), GET.replace(b'X', b'X '), GET.replace(b'X', b' X'),
        ):
            with self.subTest(wrong):
                self.assert_refused(wrong)
                self.assert_refused(*singly(wrong))

    def test_another_version_is_refused(self) -> None:
        for version in (b'HTTP/0.9', b'HTTP/2.0', b'HTTP/1.2', b'HTTX/1.1'):
            self.assert_refused(GET.replace(b'HTTP/1.1', version))
        self.assert_refused(b'GET /x\r\n\r\n')

    def test_what_begins_with_no_method_is_refused_at_once(self) -> None:
        for data in (b'\x16\x03\x01', b'G\0', b'\xff', b'"', b'G(T'):
            with self.subTest(data):
                self.assert_refused(data)
                self.assert_refused(*singly(data))

    def test_another_protocol_is_refused(self) -> None:
        """The parser reads those, too, and takes their versions for HTTP's."""
        for line in (b'GET /x RTSP/1.0', b'OPTIONS * RTSP/1.1', b'DESCRIBE /x RTSP/1.0',
                     b'GET /x ICE/1.0', b'SOURCE /x ICE/1.0', b'BREW /x RTSP/1.0',
                     b'PRI * HTTP/2.0', b'PRI * RTSP/1.0'):
            for blank in (b'', b'\r\n'):
                data = blank + line + b'\r\nHost: a\r\n\r\n'
                with self.subTest(line):
                    self.assert_refused(data)
                    self.assert_refused(*singly(data))

    def test_a_method_that_nobody_knows_is_read_where_something_begins_with_it(self) -> None:
        for method in ('BREW', 'get', 'DESCRIBE', 'GET_PARAMETER', 'SOURCE', 'PRI', 'Q' * 5000):
            with self.subTest(method[:20]):
                data = POST.replace(b'POST', method.encode())
                first, second, third = read(GET, *singly(data), GET)
                self.assertEqual(('GET', method, 'GET'), tuple(
                    each.start_line.method for each in (first, second, third)))
                self.assertEqual([b'a', b'b', b'c'], second.chunks)
                self.assertTrue(second.keep_alive)
        for unknown in (UNKNOWN, RTSP):
            self.assert_refused(GET + unknown)
            self.assert_refused(GET[:5], GET[5:] + unknown[:1], unknown[1:])
            self.assert_refused(unknown.replace(b'Host: a', b'no colon'))

    def test_what_begins_behind_an_upgrade_is_as_good_as_anything_else(self) -> None:
        upgrade = GET.replace(b'Host', UPGRADE + b'Host')
        for unknown in (UNKNOWN, RTSP):
            for cut in range(len(unknown) + 1):
                with self.subTest(cut=cut):
                    self.assertEqual(2, len(read(upgrade + unknown[:cut], unknown[cut:])))
        self.assert_refused(upgrade + GET.replace(b'1.1', b'2.0'))

    def test_a_head_over_the_limit_is_refused(self) -> None:
        def padded(size: int) -> list[bytes]:
            data = GET.replace(b'X: 1', b'X:' + b'x' * size)
            return [data[at:at + PIECE] for at in range(0, len(data), PIECE)]

        self.assertEqual(1, len(read(*padded(LIMIT - 30))))
        for size in (LIMIT, LIMIT + 2 * PIECE):
            with self.assertRaises(HeadTooLargeError):
                read(*padded(size))

    def test_what_never_ends_is_refused(self) -> None:
        """Whatever it is, and in however small pieces it comes."""
        for data in (GET[:-2], GET[:-4], b'GET /', b'Q', b'BREW /x HTTP/1.1\r\nX:', b'PLAY /'):
            with self.subTest(data), self.assertRaises(HeadTooLargeError):
                read(data, *[b'x' * 100] * (2 * LIMIT // 100))
        for data in (CHUNKED[:-2], CHUNKED[:-5] + b'2;'):
            with self.subTest(data), self.assertRaisesRegex(HTTPInputError, 'besides the body'):
                read(data, *[b'x' * 100] * (2 * LIMIT // 100))


if __name__ == '__main__':
    unittest.main()
