"""What ``pgnode users`` says, from what the store and the supervisor say."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from pgnode.bus.operator_views import UserDrift
from pgnode.bus.state import State
from pgnode.cli.traffic import Flow
from pgnode.cli.users import ShownUsers, Wanted, as_json, entries, lines
from pgnode.store.changes import Journal
from pgnode.store.rows import RejectedUser
from pgnode.supervisor.users.drift import user_drift
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb


def user(email: str, *tags: str) -> pb.User:
    return pb.User(email=email, inbounds=tags)


def stored(state: str = "running") -> ShownUsers:
    return ShownUsers(
        state=State(state),
        desired={name.lower(): user(name, "VLESS", "Trojan") for name in ("Alice", "bob", "carol")},
        failed={"dave": RejectedUser("Dave", "too long", 0, b"")},
    )


def table() -> UserTable:
    """The core does not have Alice yet, did not answer about bob, still has eve, and did not answer about frank."""
    made = UserTable(Journal())
    for name in ("bob", "carol", "eve", "frank"):
        made.put(name, user(name, "VLESS").SerializeToString())
    made.core_has_all()
    made.put("alice", user("Alice", "VLESS").SerializeToString())
    made.put("eve", None)
    made.await_rollout(("alice", "eve"))
    made.put("frank", None)
    made.core_uncertain(("bob", "frank"))
    return made


def test_whom_the_core_does_not_have_as_desired_is_named() -> None:
    waits = UserDrift.decode(user_drift(table()).encode())
    assert waits == UserDrift(frozenset({"alice", "bob"}), frozenset({"eve", "frank"}), frozenset({"bob", "frank"}))
    summary, *rows = lines(stored(), waits)
    assert summary == "3 desired, 1 applied, 2 not yet, 2 to be removed, 1 rejected; node running"
    assert [row for row in rows if not row.startswith("Dave  rejected since")] == [
        "Alice  VLESS, Trojan; not applied yet",
        "bob  VLESS, Trojan; not applied yet: the core did not answer",
        "carol  VLESS, Trojan",
        "eve  removed, still active in the core",
        "frank  removed, still active in the core: the core did not answer",
    ]
    assert len(rows) == 6
    only = [row.split(" ")[0] for row in lines(stored(), waits, Wanted(waiting_only=True))]
    assert only == ["3", "Alice", "bob", "eve", "frank"]
    both = [row.split(" ")[0] for row in lines(stored(), waits, Wanted(waiting_only=True, failed_only=True))]
    assert both == ["3", "Alice", "bob", "Dave", "eve", "frank"]


def test_a_user_whom_the_store_does_not_have_yet_is_named() -> None:
    waits = UserDrift(frozenset({"new"}), frozenset(), frozenset())
    summary, *rows = lines(stored(), waits, Wanted(waiting_only=True))
    assert summary == "3 desired, 3 applied, 1 rejected; node running"
    assert rows == ["new  not applied yet"]


@pytest.mark.parametrize("waits", [None, UserDrift(frozenset(), frozenset(), frozenset())])
@pytest.mark.parametrize("state", ["running", "failed"])
def test_what_is_not_known_is_said(state: str, waits: UserDrift | None) -> None:
    summary, *rows = lines(stored(state), waits, Wanted(waiting_only=True))
    applied = "0 applied" if state == "failed" else "applied not known" if waits is None else "3 applied"
    assert summary == f"3 desired, {applied}, 1 rejected; node {state}"
    if state == "failed":
        assert rows == ["no core runs: nobody is applied"]
    elif waits is None:
        assert rows == ["the supervisor does not answer: who is not applied is not known"]
    else:
        assert rows == []


def test_a_node_that_is_down_has_the_users_that_it_stored() -> None:
    down = replace(stored(), state=None, stored_at=1_700_000_000.0)
    summary, *rows = lines(down, None)
    assert summary.startswith(
        "3 desired, 1 rejected; the node is not running; this is the state it stored at 2023-11-1"
    )
    assert len(rows) == 4
    assert list(lines(down, None, Wanted(waiting_only=True)))[1:] == ["no core runs: nobody is applied"]


def test_one_user_is_shown_by_name_in_any_case() -> None:
    waits = UserDrift.decode(user_drift(table()).encode())
    for name, line in (
        ("ALICE", "Alice  VLESS, Trojan; not applied yet"),
        ("eve", "eve  removed, still active in the core"),
    ):
        assert list(lines(stored(), waits, Wanted(name=name)))[1:] == [line]
    assert list(entries(stored(), waits, Wanted(name="nobody"))) == []


def test_programs_get_an_object() -> None:
    waits = UserDrift.decode(user_drift(table()).encode())
    found = json.loads(as_json(stored(), waits, entries(stored(), waits, Wanted(failed_only=True))))
    [failed] = found.pop("users")
    assert found == {
        "state": "running",
        "panel_away": False,
        "stored_at": 0.0,
        "desired": 3,
        "failed": 1,
        "not_applied": 2,
        "to_be_removed": 2,
    }
    assert failed == {
        "email": "Dave",
        "inbounds": [],
        "failed": "too long",
        "failed_since": 0.0,
        "waits": "",
        "uplink_bytes": None,
        "downlink_bytes": None,
        "online": None,
    }
    down = json.loads(as_json(replace(stored(), state=None), None, ()))
    assert (down["state"], down["not_applied"], down["to_be_removed"]) == (None, None, None)


NOBODY_WAITS = UserDrift(frozenset(), frozenset(), frozenset())

MOVED = {"alice": Flow("Alice", 1_000, 20_000, online=2), "carol": Flow("carol", 10, 3_000_000)}


def test_those_with_most_traffic_are_a_table() -> None:
    moved = replace(stored(), flows=MOVED)
    summary, *rows = lines(moved, NOBODY_WAITS, Wanted(top=3))
    assert summary == "3 desired, 3 applied, 1 rejected; node running"
    assert rows == [
        "user      down        up    total  addresses",
        "carol   3.0 MB  10 bytes   3.0 MB",
        "Alice  20.0 kB    1.0 kB  21.0 kB          2",
        "bob    0 bytes   0 bytes  0 bytes",
    ]
    assert [entry.email for entry in entries(moved, None, Wanted(top=1))] == ["carol"]
    [first, *_] = json.loads(as_json(moved, None, entries(moved, None, Wanted(top=2))))["users"]
    assert (first["email"], first["uplink_bytes"], first["downlink_bytes"], first["online"]) == (
        "carol",
        10,
        3_000_000,
        0,
    )
    odd = replace(moved, desired={"a\x1b[2J": user("a\x1b[2J", "VLESS")}, failed={})
    assert all(line.isprintable() for line in lines(odd, None, Wanted(top=3)))


def test_one_user_is_shown_with_what_it_moved() -> None:
    moved = replace(stored(), flows=MOVED)
    assert list(lines(moved, NOBODY_WAITS, Wanted(name="alice")))[1:] == [
        "Alice  VLESS, Trojan",
        "  down 20.0 kB, up 1.0 kB; online from 2 addresses",
    ]
    assert list(lines(moved, NOBODY_WAITS, Wanted(name="bob")))[2:] == ["  down 0 bytes, up 0 bytes"]


def test_who_stays_is_one_word_as_in_the_status() -> None:
    assert next(lines(stored("idle"), None)).endswith("node waiting")
