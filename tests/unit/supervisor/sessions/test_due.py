"""Of departures it follows whose connections through which inbound are to be ended, and up to where in the log."""

from __future__ import annotations

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
