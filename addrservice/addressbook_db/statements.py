"""All SQL that both databases share. What only one of them knows is in its connector.

Every value is an argument (``$1``, ``$2`` ...), none is ever pasted in; ``{key_type}`` is the
connector's type of a text that sorts by code points. Where there are many values, they come as one
JSON array of arrays: ``{items}`` is the connector's way to its items, ``{0}`` to the first member
of one of them, ``{entry}`` to the entry whose nickname that is. So a statement stays the same, and
short, however many they are.
"""

from typing import Final

# The version that the tables are of -> what makes them those of the newest version, in which each
# entry has a name to find it by. At version 2 these may be yet to be filled in.
SCHEMA_VERSION: Final = 3
SCHEMA: Final[dict[int, tuple[str, ...]]] = {
    0: (
        """
        CREATE TABLE IF NOT EXISTS addresses (
            nickname {key_type} NOT NULL PRIMARY KEY,
            document TEXT NOT NULL,
            version BIGINT NOT NULL,
            created_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
            updated_at TIMESTAMP WITH TIME ZONE NOT NULL DEFAULT CURRENT_TIMESTAMP,
            name_key {key_type} NOT NULL,
            origin TEXT
        )
        """,
        'CREATE INDEX IF NOT EXISTS addresses_by_name ON addresses (name_key, nickname)',
        'CREATE TABLE IF NOT EXISTS addresses_schema (version INTEGER NOT NULL)',
        f'INSERT INTO addresses_schema (version) SELECT {SCHEMA_VERSION} '
        'WHERE NOT EXISTS (SELECT 1 FROM addresses_schema)',
    ),
    1: (
        "ALTER TABLE addresses ADD COLUMN name_key {key_type} NOT NULL DEFAULT ''",
        'ALTER TABLE addresses ADD COLUMN origin TEXT',
        'CREATE INDEX addresses_by_name ON addresses (name_key, nickname)',
        'UPDATE addresses_schema SET version = 2',
    ),
    2: (),
}
SELECT_SCHEMA_VERSION: Final = 'SELECT COALESCE(MAX(version), 0) FROM addresses_schema'
SELECT_NAMELESS: Final = (
    "SELECT nickname, document, version FROM addresses WHERE name_key = '' LIMIT $1")
SET_NAME: Final = (
    'UPDATE addresses SET name_key = $2 WHERE nickname = $1 AND version = $3 RETURNING version')
SET_SCHEMA_VERSION: Final = (
    'UPDATE addresses_schema SET version = $1 WHERE version < $1 RETURNING version')

# Writes nothing, but fails where nothing could be written: a standby, no right, no table.
CHECK: Final = 'UPDATE addresses SET version = version WHERE 1 = 0 RETURNING version'

INSERT: Final = (
    'INSERT INTO addresses (nickname, document, name_key, version, origin) '
    'VALUES ($1, $2, $3, $4, $5) ON CONFLICT (nickname) DO NOTHING RETURNING version')

INSERT_ALL: Final = (
    'INSERT INTO addresses (nickname, document, name_key, version, origin) '
    'SELECT {0}, {1}, {2}, CAST({3} AS BIGINT), {4} FROM {items} WHERE TRUE '
    'ON CONFLICT (nickname) DO NOTHING RETURNING nickname')

# The new version is the time, or one more than the last where the clock is not ahead of that.
_UPDATE: Final = (
    'UPDATE addresses SET document = $2, name_key = $3, updated_at = CURRENT_TIMESTAMP, '
    'version = CASE WHEN version < $4 THEN $4 ELSE version + 1 END WHERE nickname = $1')
_DELETE: Final = 'DELETE FROM addresses WHERE nickname = $1'
UPDATE: Final = f'{_UPDATE} RETURNING version'
UPDATE_VERSION: Final = f'{_UPDATE} AND version = $5 RETURNING version'
DELETE: Final = f'{_DELETE} RETURNING version'
DELETE_VERSION: Final = f'{_DELETE} AND version = $2 RETURNING version'

_COLUMNS: Final = 'nickname, document, version, origin'
_SELECT: Final = f'SELECT {_COLUMNS} FROM addresses'
SELECT: Final = f'{_SELECT} WHERE nickname = $1'
SELECT_ALL: Final = f'SELECT {_COLUMNS} FROM {{items}} {{entry}}'
SELECT_FIRST_PAGE: Final = f'{_SELECT} ORDER BY nickname LIMIT $1'
SELECT_PAGE: Final = f'{_SELECT} WHERE nickname > $1 ORDER BY nickname LIMIT $2'
FIND_FIRST_PAGE: Final = (
    f'{_SELECT} WHERE name_key >= $1 AND name_key <= $2 ORDER BY name_key, nickname LIMIT $3')
FIND_PAGE: Final = (
    f'{_SELECT} WHERE (name_key, nickname) > ($1, $2) AND name_key <= $3 '
    'ORDER BY name_key, nickname LIMIT $4')
