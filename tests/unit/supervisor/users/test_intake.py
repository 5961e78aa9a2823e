"""Users on their way into the table: read a few at a time, checked where they changed, made desired at once."""

from __future__ import annotations

import pytest
from google.protobuf.message import DecodeError

from pgnode.store.changes import Journal
from pgnode.supervisor.users.intake import UserIntake
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.table import UserTable
from pgnode.supervisor.users.verdicts import Check
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.users.models import INBOUNDS, vless_user


class Stage:
    def __init__(self) -> None:
        journal = Journal()
        self.table = UserTable(journal)
        self.rejected = RejectedUsers(journal, lambda: 1.0)

    def intake(self, users: list[pb.User] | bytes, **options: object) -> UserIntake:
        body = users if isinstance(users, bytes) else pb.Users(users=users).SerializeToString()
        return UserIntake(body, self.table, self.rejected, INBOUNDS, **options)  # type: ignore[arg-type]

    def take(self, users: list[pb.User] | bytes, **options: object) -> tuple[set[str], list[str]]:
        intake = self.intake(users, **options)
        while not intake.read(2):
            pass
        keys, refusals = intake.commit()
        return keys, [str(refusal) for refusal in refusals]


def test_nothing_changes_before_all_were_read() -> None:
    stage = Stage()
    intake = stage.intake([vless_user(f"user{number}", number) for number in range(5)])
    assert [intake.read(2), intake.read(2), intake.read(2)] == [False, False, True]
    assert len(stage.table) == 0
    keys, refusals = intake.commit()
    assert keys == {f"user{number}" for number in range(5)} == stage.table.keys()
    assert refusals == []


def test_a_delta_leaves_others_and_a_full_set_removes_them() -> None:
    stage = Stage()
    stage.take([vless_user("alice", 1), vless_user("bob", 2)])
    assert stage.take([vless_user("carol", 3)])[0] == {"carol"}
    assert stage.take([vless_user("carol", 3)], replace=True)[0] == {"alice", "bob", "carol"}
    assert stage.table.keys() == {"carol"}
    assert stage.take([vless_user("carol", 3, tags=())])[0] == {"carol"}
    assert len(stage.table) == 0


def test_whoever_was_changed_since_stays_as_it_is() -> None:
    stage = Stage()
    stage.take([vless_user("alice", 1), vless_user("bob", 2)])
    superseded: set[str] = set()
    intake = stage.intake([vless_user("alice", 5)], replace=True, superseded=superseded)
    assert intake.read(2)
    superseded |= {"alice", "bob"}
    before = dict(stage.table.items())
    assert intake.commit() == (set(), [])
    assert dict(stage.table.items()) == before


def test_whoever_was_put_on_the_list_since_is_taken_off_it() -> None:
    """Somebody else asked for what it had, and it is asked for with something else now."""
    stage = Stage()
    stage.take([vless_user("alice", 1), vless_user("bob", 2)])
    intake = stage.intake([vless_user("alice", 5)])
    assert intake.read(2)
    stage.rejected.put("alice", "alice", "has the same", stage.table.get("alice") or b"", by_core=False)
    stage.table.put("alice", None)
    assert intake.commit() == ({"alice"}, [])
    assert list(stage.rejected) == []


def test_one_email_in_two_spellings_is_refused() -> None:
    keys, refusals = Stage().take([vless_user("Alice", 1), vless_user("alice", 2)])
    assert keys == {"alice"}
    assert refusals == ["alice: differs only in case from 'Alice', which the core takes for the same user"]


def test_the_last_one_of_the_same_name_counts() -> None:
    stage = Stage()
    stage.take([vless_user("alice", 1), vless_user("alice", 2)])
    assert stage.table.get("alice") == vless_user("alice", 2).SerializeToString(deterministic=True)


def test_unusable_users_are_refused_and_those_that_were_fine_with_other_inbounds_are_not_desired_any_more() -> None:
    stage = Stage()
    bad = vless_user("bad", 1)
    bad.proxies.vless.id = "no id"
    assert stage.take([bad, pb.User(email="")])[1] == [
        "bad: vless id is not a UUID",
        "(empty e-mail): the e-mail is empty",
    ]
    stage.rejected.drop(["bad"])
    stage.table.put("bad", bad.SerializeToString(deterministic=True))
    assert stage.take([bad])[1] == []
    keys, refusals = stage.take([bad], check=Check.ALL)
    assert (keys, len(refusals), len(stage.table)) == ({"bad"}, 1, 0)
    assert "bad" in stage.rejected


def test_whom_the_core_refused_gets_the_same_answer_until_it_is_to_be_tried_again() -> None:
    stage = Stage()
    user = vless_user("eve", 1)
    stage.rejected.put("eve", "eve", "the core said no", user.SerializeToString(deterministic=True), by_core=True)
    for check in (Check.CHANGED, Check.ALL):
        assert stage.take([user], check=check)[1] == ["eve: the core said no"]
    assert stage.take([user], check=Check.AGAIN) == ({"eve"}, [])


def test_clients_are_collected_of_whoever_is_checked() -> None:
    stage = Stage()
    cache = ClientJsonCache(INBOUNDS)
    stage.take([vless_user("alice", 1)], check=Check.ALL, clients=cache)
    assert cache.missing(stage.table.desired) == []


def test_users_for_other_inbounds_are_entered_anew() -> None:
    stage = Stage()
    users = [vless_user("alice", 1), vless_user("bob", 2), vless_user("carol", 1), vless_user("alice", 3)]
    bad = vless_user("bad", 1)
    bad.proxies.vless.id = "no id"
    keys, refusals = stage.take([*users, bad, pb.User(email="none")], check=Check.ALL, replace=True)
    assert keys == {"alice", "bob", "carol", "none"}
    assert [text.partition(":")[0] for text in refusals] == ["bad"]
    assert stage.table.keys() == {"alice", "bob", "carol"}
    assert stage.table.get("alice") == vless_user("alice", 3).SerializeToString(deterministic=True)
    assert stage.table.credentials.inbounds == INBOUNDS
    assert stage.take([vless_user("dave", 2)])[0] == {"bob", "dave"}, "whoever has it lost it to a later one"


def test_users_that_were_parsed_already_are_taken() -> None:
    stage = Stage()
    intake = UserIntake([vless_user("alice", 1)], stage.table, stage.rejected, INBOUNDS)
    assert intake.read(5)
    assert intake.commit()[0] == {"alice"}


def test_an_odd_message_is_left_to_the_parser() -> None:
    stage = Stage()
    odd = pb.Users(users=[vless_user("alice", 1)]).SerializeToString() + b"\x12\x00"
    assert stage.take(odd)[0] == {"alice"}
    with pytest.raises(DecodeError):
        Stage().take(b"\x0a\xff")
