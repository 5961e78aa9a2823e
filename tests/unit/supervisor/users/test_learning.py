"""Who has which credential is learned once for each set of inbounds, and anew where most of what is known is of the past."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.users.credentials import CredentialIndex, number_of
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


async def test_a_worn_index_is_made_anew_of_those_that_there_are() -> None:
    table, rejected = UserTable(Journal()), RejectedUsers(Journal(), lambda: 0.0)
    table.use_credentials(CredentialIndex(INBOUNDS, worn_entries=100))
    for name, number in (("alice", 1), ("bob", 2)):
        table.put(name, vless_user(name, number).SerializeToString(deterministic=True))
    waiting = vless_user("carol", 1).SerializeToString()
    rejected.put("carol", "carol", "alice has it", waiting, by_core=False)
    table.credentials.wait(number_of("1"), "carol")
    turn = 2
    while not table.credentials.is_worn():
        turn += 1
        assert (await learn_credentials(table, rejected, INBOUNDS, 2)).keys == set()
        table.put("bob", vless_user("bob", turn).SerializeToString(deterministic=True))
    worn = table.credentials
    assert len(worn) == 100
    # Whoever waits still does.
    assert (await learn_credentials(table, rejected, INBOUNDS, 2)).lost.keys() == {"carol"}
    index = table.credentials
    assert index is not worn
    assert not index.is_worn()
    assert len(index) == 4, "two users, and a credential of each"
    assert [list(keys) for keys in index.waiting.values()] == [["carol"]]
    [number] = index.numbers(table.get("bob"))
    assert index.holders(number) == ["bob"]
