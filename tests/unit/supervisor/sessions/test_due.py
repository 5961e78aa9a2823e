"""Of departures it follows whose connections through which inbound are to be ended, and up to where in the log."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pgnode.supervisor.sessions.due import Batch
from pgnode.supervisor.users.departures import Departure
from pgnode.testing.users import make_user
from pgnode.xray.config.inbounds import InboundSpec

INBOUNDS = {tag: InboundSpec(tag, protocol, managed=True) for tag, protocol in (("v", "vless"), ("t", "trojan"))}


def message(*tags: str, key: str = "") -> bytes:
    return make_user("Alice", tags, key=key).SerializeToString()


def batch(*departures: Departure) -> dict[tuple[str, str], int | None]:
    made = Batch()
    for departure in departures:
        made.add(departure, INBOUNDS)
    return {place: due.until for place, due in made.entries.items()}


def left(before: bytes, after: bytes | None, place: int = 5) -> Departure:
    return Departure("alice", (before,), after, place, 1.0)


def test_who_is_removed_loses_everything() -> None:
    assert batch(left(message("v", "t"), None)) == {("alice", "v"): None, ("alice", "t"): None}


def test_who_is_taken_out_of_an_inbound_loses_that() -> None:
    assert batch(left(message("v", "t"), message("t"))) == {("alice", "v"): None}


def test_a_changed_account_is_lost_up_to_the_change() -> None:
    assert batch(left(message("v", "t"), message("v", "t", key="new"))) == {("alice", "v"): 5, ("alice", "t"): 5}


def test_a_message_that_changes_no_account_loses_nothing() -> None:
    changed = make_user("ALICE", ["t", "v"])
    changed.proxies.vless.id = make_user("Alice", []).proxies.vless.id
    changed.proxies.trojan.password = make_user("Alice", []).proxies.trojan.password
    assert batch(left(message("v", "t"), changed.SerializeToString())) == {}


def test_who_comes_back_has_new_connections_from_there_on() -> None:
    back = Departure("alice", (), message("v"), 9, 2.0)
    assert batch(left(message("v", "t"), None), back) == {("alice", "v"): 9, ("alice", "t"): None}
    # What was noted first holds: it was a change, and only what came before that was lost.
    assert batch(left(message("v"), message("v", key="new")), back)["alice", "v"] == 5


def test_who_goes_once_more_loses_all_of_it() -> None:
    assert batch(left(message("v"), message("v", key="new")), left(message("v", key="new"), None, 8)) == {
        ("alice", "v"): None
    }


def test_a_stranger_is_lost_where_found() -> None:
    assert batch(Departure("alice", (), None, 0, 1.0, ("v", "gone"))) == {("alice", "v"): None}
    made = Batch()
    made.add(Departure("alice", (), None, 0, 1.0, ("v",)), INBOUNDS)
    assert made.entries["alice", "v"].name == "alice"
    assert made.departures == {"alice": 1}


MESSAGES = [message("v", "t"), message("v"), message("t", key="new"), message("v", "t", key="new")]
DEPARTURES = st.builds(
    Departure,
    st.sampled_from(["alice", "b\x1bb", "b\\x1bb"]),
    st.lists(st.sampled_from(MESSAGES), max_size=2).map(tuple),
    st.sampled_from([None, *MESSAGES]),
    st.integers(0, 9),
    st.floats(0, 9),
    st.sampled_from([(), ("v",)]),
)


@given(st.lists(DEPARTURES, max_size=6), st.lists(DEPARTURES, max_size=6), st.booleans())
def test_who_is_read_late_is_read_as_everybody_else(first: list[Departure], then: list[Departure], early: bool) -> None:
    """Whether it is before or after the user came back."""
    added, kept = Batch(), Batch()
    for departure in first:
        added.add(departure, INBOUNDS)
        kept.keep(departure)
    assert bool(kept) == bool(first)
    names, keys = {"b\\x1bb"}, {"alice"}
    if early:
        for key in kept.unread_among(names, keys):
            kept.read(key, INBOUNDS)
    for departure in then:
        if departure.key in added.departures:
            added.came_back(departure, INBOUNDS)
            kept.came_back(departure, INBOUNDS)
    for key in kept.unread_among(names, keys):
        kept.read(key, INBOUNDS)
    assert kept.entries == added.entries
    assert kept.departures == added.departures
    assert not kept.unread


def test_nobody_else_is_read() -> None:
    made = Batch()
    for key in ("alice", "bob", "Ä\x1b"):
        made.keep(Departure(key, (message("v"),), None, 0, 1.0))
    assert made.unread_among({"bob", "carol"}, {"dave"}) == ["bob"]
    assert made.unread_among(set(), {"Ä\x1b"}) == ["Ä\x1b"]
    assert made.unread_among(set(), set()) == []
