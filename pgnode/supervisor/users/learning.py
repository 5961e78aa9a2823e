"""Finding out who has which credential: where the inbounds have changed, and after very many changes of users."""

from __future__ import annotations

import asyncio

from pgnode.supervisor.users.credentials import INDEX_PARTS, CredentialIndex
from pgnode.supervisor.users.decoding import Inbounds
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.settling import Settled, settle_credentials
from pgnode.supervisor.users.table import UserTable
from pgnode.xray.config.accounts import email_key


async def learn_credentials(table: UserTable, rejected: RejectedUsers, inbounds: Inbounds, slice_users: int) -> Settled:
    """Make sure that the table knows who has which credential in these inbounds; the event loop gets its turns meanwhile.

    Args:
        table: All users; nobody changes it before this returns.
        rejected: Those who cannot be had.
        inbounds: The inbounds, by tag.
        slice_users: Users read at a time.

    Returns:
        Who cannot be had since somebody else has the same one, and who can by now; all of them are to be applied.
    """
    if table.credentials.inbounds == inbounds and not table.credentials.is_worn():
        return Settled({}, set())
    index = CredentialIndex(inbounds)
    for number, (key, raw) in enumerate(list(table.items()), 1):
        index.add(key, index.numbers(raw))
        if number % slice_users == 0:
            await asyncio.sleep(0)
    while True:
        if index.finish(INDEX_PARTS):
            break
        await asyncio.sleep(0)
    table.use_credentials(index)
    again = [email_key(user.email) for user in rejected.all() if not user.by_core]
    return settle_credentials(table, rejected, inbounds, again)
