"""All that is tested over httptools, over Tornado's own connections too.

Left out is what does not come near a connection, or is slow and takes its way through the same
code as something that is here.
"""

import unittest
from types import ModuleType
from typing import Final

from tests.integration import (
    hostile_test, http_body_test, http_connection_test, http_contract_memory_test, http_error_test,
    http_log_test, http_server_test, http_stream_test, overload_test, server_test, tls_test,
)

# Modules whose tests run again, and the classes and the tests of each that do not.
MODULES: Final[dict[ModuleType, set[str]]] = {
    hostile_test: {'EntryTest', 'MemoryTest'},  # poison for stores; seven times all of the rest
    http_body_test: set(),
    http_connection_test: set(),
    http_contract_memory_test: set(),
    http_error_test: set(),
    http_log_test: {'WaitingLinesTest'},  # what is written when: nothing of connections
    http_server_test: {  # it hands data to a connection of httptools in a turn of its choice
        'test_a_request_that_comes_in_the_turn_of_the_deadline_is_told_so'},
    http_stream_test: set(),
    overload_test: {'WaitForPostgreSQLTest', 'WaitForSQLiteTest'},
    server_test: {'test_a_large_book_is_streamed_in_little_memory'},  # see http_stream_test
    tls_test: set(),
}


def over_tornado(case: type[unittest.TestCase]) -> type[unittest.TestCase]:
    """The same tests over Tornado's connections."""
    return type(case.__name__, (case,), {'http_parser': 'tornado', '__module__': __name__})


def load_tests(
    loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: str | None
) -> unittest.TestSuite:
    suite = unittest.TestSuite()
    for module, left_out in MODULES.items():
        for case in vars(module).values():
            if (isinstance(case, type) and issubclass(case, unittest.TestCase)
                    and hasattr(case, 'http_parser') and case.__name__ not in left_out):
                suite.addTests(over_tornado(case)(name) for name in loader.getTestCaseNames(case)
                               if name not in left_out)
    return suite
