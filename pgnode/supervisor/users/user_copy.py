"""The copy of the users in the store: which of them it does not have yet, and how it gets them.

What changed goes with the transaction that answers for it. Where a start brings another set of users, that set is written beside
the stored one while the core comes up, and the transaction only puts it in its place: an answer waits for no long write.
"""

from __future__ import annotations

import structlog
from redis.asyncio.client import Pipeline

from pgnode.bus.connection import BUS_ERRORS
from pgnode.supervisor.persistence.keeper import Undo
from pgnode.supervisor.persistence.redis_store import Store
from pgnode.supervisor.users.table import UserTable

log = structlog.get_logger(__name__)

#: So many users at least are written ahead; fewer take the transaction a few milliseconds.
AHEAD_USERS = 1000


class UserCopy:
    """A part for the keeper (:class:`pgnode.supervisor.persistence.keeper.Part`). Belongs to the supervisor's loop."""

    def __init__(self, store: Store, table: UserTable) -> None:
        self._store = store
        self._table = table
        #: The last long change whose users are the desired ones: delivered again, it is applied, but not taken in again,
        #: for others may have changed users since.
        self.taken = ""
        self._taken_unstored = False
        #: How many users the core has, as the store knows it.
        self._count = -1
        #: The set that the next transaction takes; it is in the store already.
        self._ahead: dict[str, bytes] | None = None
        #: The store may hold such a set that nobody will take, by an earlier supervisor too.
        self._ahead_left = True

    def __repr__(self) -> str:
        return f"UserCopy({len(self._table.unstored)} not stored)"

    def now_taken(self, command: str) -> None:
        """The users of this long change are the desired ones."""
        self.taken, self._taken_unstored = command, True

    async def write_ahead(self) -> None:
        """Put the desired users beside the stored ones, where most are new to the store. Never raises for the store's sake."""
        users = dict(self._table.items())
        if len(self._table.unstored) < max(AHEAD_USERS, len(users) // 2):
            return
        self._ahead_left = True
        try:
            await self._store.write_ahead(users)
        except BUS_ERRORS as error:
            log.warning("users not written ahead, they go with the answer", error=str(error))
        else:
            self._ahead = users

    def forget_ahead(self) -> None:
        """What was written ahead will not be desired."""
        self._ahead = None

    def stage(self, pipe: Pipeline) -> Undo | None:
        table = self._table
        # Told when a long change has come to its end.
        count = table.applied_count if not table.pending else self._count
        if not table.unstored and not self._taken_unstored and count == self._count:
            return None
        unstored, table.unstored = table.unstored, set()
        taken, self._taken_unstored = self._taken_unstored, False
        if count != self._count:
            self._count = count
            self._store.put_applied_count(pipe, count)
        self._put_users(pipe, unstored)
        if taken:
            self._store.put_taken(pipe, self.taken)

        def undo() -> None:
            table.unstored |= unstored
            self._taken_unstored |= taken
            self._count = -1
            # Whether it was taken is not known; written again, it is at most written twice.
            self._ahead_left = True

        return undo

    def _put_users(self, pipe: Pipeline, unstored: set[str]) -> None:
        table, ahead = self._table, self._ahead
        self._ahead = None
        if ahead is None:
            if self._ahead_left:
                self._store.drop_ahead(pipe)
            self._store.put_users(pipe, {key: table.get(key) for key in unstored})
        else:
            self._store.take_ahead(pipe)
            changed = {key: raw for key in unstored if (raw := table.get(key)) is not ahead.get(key)}
            self._store.put_users(pipe, changed)
        self._ahead_left = False

    def stage_all(self, pipe: Pipeline) -> Undo | None:
        table = self._table
        table.unstored = set()
        self._taken_unstored = self._ahead_left = False
        self._ahead = None
        self._count = table.applied_count
        self._store.put_applied_count(pipe, self._count)
        self._store.clear_users(pipe)
        self._store.put_taken(pipe, self.taken)
        self._store.put_users(pipe, dict(table.items()))
        return lambda: table.unstored.update(table.keys())
