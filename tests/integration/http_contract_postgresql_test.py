"""The HTTP contract on PostgreSQL."""

import unittest

from tests import (
    http_changes_contract, http_conditions_contract, http_contract, http_pages_contract,
)
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


class BookPageTest(OnPostgreSQL, http_pages_contract.BookPageTest):
    """GET /addressbook?limit=N&after=ID."""


class MeanwhileTest(OnPostgreSQL, http_pages_contract.MeanwhileTest):
    """Pages that are read while others write."""


class SearchTest(OnPostgreSQL, http_pages_contract.SearchTest):
    """GET /addressbook?name=PREFIX."""


class ValidatorTest(OnPostgreSQL, http_conditions_contract.ValidatorTest):
    """ETag and Last-Modified."""


class PreconditionTest(OnPostgreSQL, http_conditions_contract.PreconditionTest):
    """What conditions are made of, as far as it is the stores that decide."""


class PatchTest(OnPostgreSQL, http_changes_contract.PatchTest):
    """PATCH /addressbook/<id>."""


class RetryTest(OnPostgreSQL, http_changes_contract.RetryTest):
    """POST /addressbook with an Idempotency-Key."""


if __name__ == '__main__':
    unittest.main()
