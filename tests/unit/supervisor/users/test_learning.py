"""Who has which credential is learned once for each set of inbounds."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.users.learning import learn_credentials
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.table import UserTable
from tests.unit.supervisor.users.models import INBOUNDS, VLESS, vless_user


async def test_users_who_share_one_are_found_and_those_who_wait_are_known() -> None:
    table, rejected = UserTable(Journal()), RejectedUsers(Journal(), lambda: 0.0)
    users = [vless_user("alice", 1), vless_user("bob", 1), vless_user("carol", 2)]
    table.restore({user.email: user.SerializeToString(deterministic=True) for user in users})
    for user in (vless_user("dave", 2), vless_user("eve", 3)):
        rejected.put(user.email, user.email, "some cause", user.SerializeToString(), by_core=False)
    rejected.put("frank", "frank", "the core said no", vless_user("frank", 4).SerializeToString(), by_core=True)
    learned = await learn_credentials(table, rejected, INBOUNDS, 2)
    assert (set(learned.lost), learned.revived) == ({"alice", "dave"}, {"eve"})
    assert table.keys() == {"bob", "carol", "eve"}
    assert set(rejected) == {"alice", "dave", "eve", "frank"}
    index = table.credentials
    assert (await learn_credentials(table, rejected, INBOUNDS, 2)).keys == set()
    assert table.credentials is index
    await learn_credentials(table, rejected, {"vless": VLESS}, 2)
    assert table.credentials is not index
    table.put("carol", None)
    assert len(table.credentials.freed) == 1
