"""The HTTP contract on PostgreSQL."""

import unittest

from tests import http_contract
from tests.backends import OnPostgreSQL
from tests.postgresql import shared_server

setUpModule = shared_server  # now, for to start it would hold up an event loop


class ProbeTest(OnPostgreSQL, http_contract.ProbeTest):
    """/healthz and /readiness."""


class BookTest(OnPostgreSQL, http_contract.BookTest):
    """/addressbook."""


class EntryTest(OnPostgreSQL, http_contract.EntryTest):
    """/addressbook/<id>."""


class RefusalTest(OnPostgreSQL, http_contract.RefusalTest):
    """What is refused, and how."""


class PagesTest(OnPostgreSQL, http_contract.PagesTest):
    """The book when it is larger than one page of the store."""


if __name__ == '__main__':
    unittest.main()
