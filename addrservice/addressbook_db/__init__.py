"""The store: address book entries by nickname.

``AbstractAddressBookDB`` is the contract, ``InMemoryAddressBookDB`` its simplest keeper and the
official fake of the tests, ``SQLAddressBookDB`` the durable one. A backend stores what
``serialise_entry`` made of an entry, never what a client sent, and gives back those very bytes:
``StoredEntry`` is that form. The ``*_address`` methods take and give entries as dictionaries.
"""

from addrservice.addressbook_db.abstract import (
    PAGE_SIZE, AbstractAddressBookDB, Place, StoredEntry, place_of,
)
from addrservice.addressbook_db.memory import InMemoryAddressBookDB
from addrservice.addressbook_db.sql import SQLAddressBookDB
from addrservice.config import SQLITE_DSN, SQLSettings, StoreSettings
from addrservice.sql_connectors import SQLConnector

__all__ = [
    'PAGE_SIZE', 'AbstractAddressBookDB', 'InMemoryAddressBookDB', 'Place', 'SQLAddressBookDB',
    'StoredEntry', 'create_addressbook_db', 'place_of',
]


def create_addressbook_db(settings: StoreSettings) -> AbstractAddressBookDB:
    """The store that the configuration names under ``addr-db``, not yet started.

    A database's driver is imported only where it is the one.

    :raises StartError: it names a file that cannot be found
    """
    if not isinstance(settings.sql, SQLSettings):
        return InMemoryAddressBookDB()
    return SQLAddressBookDB(_create_connector(settings.sql), settings.sql)


def _create_connector(settings: SQLSettings) -> SQLConnector:
    if SQLITE_DSN.fullmatch(settings.dsn):
        from addrservice.sql_connectors.sqlite import SQLiteConnector
        return SQLiteConnector(settings)
    from addrservice.sql_connectors.postgresql import PostgreSQLConnector
    return PostgreSQLConnector(settings)
