"""Who has a credential for which several users asked."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.users.credentials import CredentialIndex
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rivals import put_aside, reject_losers, rival_of
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.accounts import accounts_of
from tests.unit.supervisor.users.models import INBOUNDS, vless_user


def staged(*users: pb.User) -> tuple[UserTable, RejectedUsers]:
    table = UserTable(Journal())
    table.use_credentials(CredentialIndex(INBOUNDS))
    for user in users:
        table.put(user.email, user.SerializeToString(deterministic=True))
    return table, RejectedUsers(Journal(), lambda: 0.0)


def test_the_later_change_has_it() -> None:
    table, rejected = staged(vless_user("alice", 1), vless_user("bob", 1), vless_user("carol", 2))
    lost = reject_losers(table, rejected)
    assert {key: str(refusal) for key, refusal in lost.items()} == {
        "alice": "alice: has the same VLESS id as 'bob', in inbound 'vless'"
    }
    assert table.keys() == {"bob", "carol"}
    assert list(rejected) == ["alice"]
    assert reject_losers(table, rejected) == {}


def test_a_rival_is_whoever_has_it_in_the_same_inbound_now() -> None:
    table, rejected = staged(vless_user("alice", 1), vless_user("bob", 2, ["trojan"]))
    asked = accounts_of(vless_user("eve", 1), INBOUNDS)
    rival = rival_of(table, "eve", asked)
    assert rival is not None
    assert (rival.key, rival.email, rival.tag) == ("alice", "alice", "vless")
    assert rival_of(table, "alice", asked) is None
    assert rival_of(table, "eve", asked, among={"bob"}) is None
    assert rival_of(table, "eve", accounts_of(vless_user("eve", 2), INBOUNDS)) is None
    raw = vless_user("eve", 1).SerializeToString()
    assert str(put_aside(rejected, table.credentials, "eve", raw, rival)).startswith("eve: has the same VLESS id as")
    assert list(table.credentials.waiting.values()) == [{"eve": None}]
    table.put("alice", vless_user("alice", 3).SerializeToString(deterministic=True))
    assert rival_of(table, "eve", asked) is None
    assert table.credentials.freed == {rival.number}
