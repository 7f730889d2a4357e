"""A street of residents in one service: who lives there, and how each is asked for."""

from dataclasses import dataclass
from typing import Any

import httpx2

from tests.isolation.doors import Door
from tests.isolation.resident import Resident
from tests.isolation.rows import Rows, rows_of
from tests.support.service import Service

Caller = tuple[Resident, str]
"""Somebody, and the credential that they hold."""


@dataclass(frozen=True)
class Street:
    """Ada's things are what others try for; Bob has as much himself, and Eve lets another door stand open."""

    service: Service
    client: httpx2.AsyncClient
    database_url: str
    ada: Resident
    bob: Resident
    eve: Resident

    @property
    def strangers(self) -> list[Resident]:
        return [self.bob, self.eve]

    def callers(self, door: Door) -> list[Caller]:
        """Every other user, with each kind of credential that opens such a door."""
        bearers = [(one, one.person.token) for one in self.strangers]
        if not door.only_person:
            bearers += [(one, secret) for one in self.strangers for secret in (one.secret, one.bound)]
        return bearers

    async def ask(self, door: Door, caller: Caller, at: str | None = None, **given: Any) -> httpx2.Response:
        """What a caller is answered, at their own path or another's."""
        who, bearer = caller
        return await self.client.send(door.request(at or who.person.user_id, bearer, who.ids, given))

    async def newcomer(self) -> Resident:
        return await Resident.moving_in(self.service.user())

    async def rows(self, whose: Resident) -> Rows:
        return await rows_of(whose.person.user_id, self.database_url)

    async def things(self, *whose: Resident) -> list[Rows]:
        """All but the account of what they have asked for, which grows with their own asking."""
        found = [await self.rows(one) for one in whose]
        return [{name: rows for name, rows in one.items() if name != "allowances"} for one in found]
