"""docs/scale.md, held against the code: the tables that it says to make by hand."""

import re
import sqlite3
import unittest
from contextlib import closing

from addrservice.addressbook_db.statements import SCHEMA, SCHEMA_VERSION, SELECT_SCHEMA_VERSION
from tests.support import ROOT

SCALE = ROOT / 'docs' / 'scale.md'

# What only the engine of a block knows, and SQLite does not.
DIALECT = re.compile(
    r' USING HASH WITH \(bucket_count = \d+\)| COLLATE "C"| SPLIT AT VALUES \(.*\)')


def columns(*statements: str) -> dict[str, list[tuple[object, ...]]]:
    """The columns that some statements make, by table and index, with types and constraints."""
    with closing(sqlite3.connect(':memory:')) as connection:
        for statement in statements:
            connection.executescript(statement)
        return {
            'addresses': connection.execute('PRAGMA table_info(addresses)').fetchall(),
            'index': connection.execute('PRAGMA index_info(addresses_by_name)').fetchall(),
            'version': connection.execute(SELECT_SCHEMA_VERSION).fetchall(),
        }


class TablesTest(unittest.TestCase):
    def test_tables_made_by_hand_are_those_that_the_service_makes(self) -> None:
        made = columns(*(statement.format(key_type='TEXT') for statement in SCHEMA[0]))
        self.assertEqual([(SCHEMA_VERSION,)], made['version'])
        blocks = re.findall(r'```sql\n(.*?)```', SCALE.read_text(encoding='utf-8'), re.DOTALL)
        by_hand = [block for block in blocks if 'CREATE TABLE' in block]
        self.assertEqual(2, len(by_hand))
        for block in by_hand:
            self.assertEqual(made, columns(DIALECT.sub('', block)))
