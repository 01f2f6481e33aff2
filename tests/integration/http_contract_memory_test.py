"""The HTTP contract on the store in memory, with what is the same for every store."""

import unittest

from tests import (
    http_changes_contract, http_conditions_contract, http_contract, http_pages_contract,
)


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


class BookPageTest(http_pages_contract.BookPageTest):
    """GET /addressbook?limit=N&after=ID."""


class MeanwhileTest(http_pages_contract.MeanwhileTest):
    """Pages that are read while others write."""


class SearchTest(http_pages_contract.SearchTest):
    """GET /addressbook?name=PREFIX."""


class ValidatorTest(http_conditions_contract.ValidatorTest):
    """ETag and Last-Modified."""


class PreconditionTest(http_conditions_contract.PreconditionTest):
    """What conditions are made of, as far as it is the stores that decide."""


class PatchTest(http_changes_contract.PatchTest):
    """PATCH /addressbook/<id>."""


class RetryTest(http_changes_contract.RetryTest):
    """POST /addressbook with an Idempotency-Key."""


class ParameterTest(http_pages_contract.ParameterTest):
    """The parameters of GET /addressbook, and those of its links."""


class FoldingTest(http_pages_contract.FoldingTest):
    """What is the same to a search."""


class EncodingTest(http_conditions_contract.EncodingTest):
    """The entity tags of the two encodings."""


class PreconditionTableTest(http_conditions_contract.PreconditionTableTest):
    """What conditions are made of, in full."""


class MergeTest(http_changes_contract.MergeTest):
    """What a patch is, and what comes of it."""


class KeyTest(http_changes_contract.KeyTest):
    """What a key is, and what it is for."""


if __name__ == '__main__':
    unittest.main()
