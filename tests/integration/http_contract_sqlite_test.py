"""The HTTP contract on SQLite."""

import unittest

from tests import (
    http_changes_contract, http_conditions_contract, http_contract, http_pages_contract,
)
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


class BookPageTest(OnSQLite, http_pages_contract.BookPageTest):
    """GET /addressbook?limit=N&after=ID."""


class MeanwhileTest(OnSQLite, http_pages_contract.MeanwhileTest):
    """Pages that are read while others write."""


class SearchTest(OnSQLite, http_pages_contract.SearchTest):
    """GET /addressbook?name=PREFIX."""


class ValidatorTest(OnSQLite, http_conditions_contract.ValidatorTest):
    """ETag and Last-Modified."""


class PreconditionTest(OnSQLite, http_conditions_contract.PreconditionTest):
    """What conditions are made of, as far as it is the stores that decide."""


class PatchTest(OnSQLite, http_changes_contract.PatchTest):
    """PATCH /addressbook/<id>."""


class RetryTest(OnSQLite, http_changes_contract.RetryTest):
    """POST /addressbook with an Idempotency-Key."""


if __name__ == '__main__':
    unittest.main()
