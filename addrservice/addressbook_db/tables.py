"""The tables of a SQL database: made where they are missing, made new where they are older."""

import asyncio
from typing import Final

import orjson

from addrservice.addressbook_db.abstract import PAGE_SIZE, fold
from addrservice.addressbook_db.deadline import Deadline
from addrservice.addressbook_db.statements import (
    SCHEMA, SCHEMA_VERSION, SELECT_NAMELESS, SELECT_SCHEMA_VERSION, SET_NAME, SET_SCHEMA_VERSION,
)
from addrservice.errors import NewerSchemaError, StoreMisconfiguredError
from addrservice.sql_connectors import SQLConnector, hear

# Seconds that it may take to make older tables new: the more entries, the longer an index takes.
UPGRADE_DEADLINE: Final = 600


class Tables:
    """Sees to it that the tables are those of this version of the service.

    :param connector: the way to the database
    :param deadline: of an operation
    :ivar are_ready: whether they are there and new enough
    """

    def __init__(self, connector: SQLConnector, deadline: Deadline) -> None:
        self.are_ready = False
        self._connector = connector
        self._deadline = deadline
        self._upgrading: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Ends what is under way."""
        if self._upgrading is not None:
            self._upgrading.cancel()

    async def prepare(self) -> None:
        """Makes the tables unless they are there.

        :raises NewerSchemaError: they are of a newer service
        """
        version = await self._version()
        if version < SCHEMA_VERSION:
            # It goes on where it takes longer than the operation has time.
            await asyncio.shield(self._latest_upgrade(version))
            version = await self._version()
        if version > SCHEMA_VERSION:
            raise NewerSchemaError(f'the tables are of version {version}, of a newer service; '
                                   f'this one knows them up to version {SCHEMA_VERSION}')
        self.are_ready = True

    def _latest_upgrade(self, version: int) -> asyncio.Task[None]:
        """The upgrade that is under way; else a new one."""
        if self._upgrading is None or self._upgrading.done():
            self._upgrading = asyncio.create_task(self._upgrade(version))
            self._upgrading.add_done_callback(hear)
        return self._upgrading

    async def _upgrade(self, version: int) -> None:
        """Makes the tables, or makes those of an older version new."""
        statements = [statement.format(key_type=self._connector.key_type)
                      for statement in SCHEMA[version]]
        deadline = Deadline(UPGRADE_DEADLINE) if version else self._deadline
        try:
            with deadline.bound():
                await self._connector.run_exclusively(statements)
        except StoreMisconfiguredError:
            if await self._version() <= version:
                raise
            # Another service has done it at the same time.
        if version:
            while await self._fill_in_names():
                pass
            await self._connector.write(SET_SCHEMA_VERSION, SCHEMA_VERSION)

    async def _fill_in_names(self) -> bool:
        """Gives some entries of older tables the names to find them by; False if all have them."""
        with self._deadline.bound():
            rows = await self._connector.read(SELECT_NAMELESS, PAGE_SIZE)
            await asyncio.gather(*(self._fill_in_name(*row) for row in rows))
        return bool(rows)

    async def _fill_in_name(self, nickname: str, document: str, version: int) -> None:
        name = fold(orjson.loads(document)['name'])
        await self._connector.write(SET_NAME, nickname, name, version)

    async def _version(self) -> int:
        if not await self._connector.read(self._connector.find_table, 'addresses_schema'):
            return 0
        [[version]] = await self._connector.read(SELECT_SCHEMA_VERSION)
        return int(version)
