"""The clients of a config, collected on the way: the same as those made at its end, whatever came in between."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.store.changes import Journal
from pgnode.supervisor.users.decoding import decode
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.inbounds import InboundSpec

INBOUNDS = {
    "vless": InboundSpec(tag="vless", protocol="vless", managed=True),
    "trojan": InboundSpec(tag="trojan", protocol="trojan", managed=True),
}
_USERS = st.builds(
    lambda email, password, inbounds: pb.User(
        email=email, proxies=pb.Proxy(trojan=pb.Trojan(password=password)), inbounds=inbounds
    ),
    st.sampled_from(["alice", "bob", 'quo"ted', "ünï"]),
    st.sampled_from(["one", 'tw"o']),
    st.lists(st.sampled_from(["vless", "trojan"]), max_size=2, unique=True),
)


def _put(clients: ClientJsonCache, table: UserTable, key: str) -> None:
    clients.put(key, table.desired[key], *decode(table.get(key), INBOUNDS))


@given(st.lists(st.tuples(_USERS, st.booleans()), max_size=12))
def test_what_was_collected_is_what_is_desired(steps: list[tuple[pb.User, bool]]) -> None:
    table, clients = UserTable(Journal()), ClientJsonCache(INBOUNDS)
    for user, collected in steps:
        table.put(user.email, user.SerializeToString() if user.inbounds else None)
        if collected and user.inbounds:
            _put(clients, table, user.email)
    for key in clients.missing(table.desired):
        _put(clients, table, key)
    assert clients.missing(table.desired) == []

    afresh = ClientJsonCache(INBOUNDS)
    for key in table.desired:
        _put(afresh, table, key)
    made = clients.hand_over(table.desired)
    assert made == afresh.hand_over(table.desired)
    assert [len(rows) for rows in made.values()] == [
        0,
        sum("trojan" in pb.User.FromString(raw).inbounds for raw in table.desired.values()),
    ]
    assert set(clients.missing(table.desired)) == table.keys(), "it keeps nothing"
