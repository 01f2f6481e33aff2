"""The HTTP contract on the store in memory."""

import unittest

from tests import http_contract


class ProbeTest(http_contract.ProbeTest):
    """/healthz and /readiness."""


class BookTest(http_contract.BookTest):
    """/addressbook."""


class EntryTest(http_contract.EntryTest):
    """/addressbook/<id>."""


class RefusalTest(http_contract.RefusalTest):
    """What is refused, and how."""


class PagesTest(http_contract.PagesTest):
    """The book when it is larger than one page of the store."""


if __name__ == '__main__':
    unittest.main()
