"""The HTTP contract on SQLite."""

import unittest

from tests import http_contract
from tests.backends import OnSQLite


class ProbeTest(OnSQLite, http_contract.ProbeTest):
    """/healthz and /readiness."""


class BookTest(OnSQLite, http_contract.BookTest):
    """/addressbook."""


class EntryTest(OnSQLite, http_contract.EntryTest):
    """/addressbook/<id>."""


class RefusalTest(OnSQLite, http_contract.RefusalTest):
    """What is refused, and how."""


class PagesTest(OnSQLite, http_contract.PagesTest):
    """The book when it is larger than one page of the store."""


if __name__ == '__main__':
    unittest.main()
