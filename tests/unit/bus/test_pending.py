"""Commands that wait for their answers: their order, their time, and sending them once more."""

from __future__ import annotations

from pgnode.bus.commands import Kind, Reply
from pgnode.bus.pending import PendingCommand, PendingCommands
from pgnode.errors import BusUnavailableError, DeadlineExceededError


class Caller:
    """Takes answers."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.gone = False

    def done(self) -> bool:
        return self.gone

    def set_result(self, reply: Reply, /) -> None:
        self.replies.append(reply)


def command(name: bytes, caller: Caller | None = None, *, ends_at: float = 10) -> PendingCommand:
    return PendingCommand(name, Kind.SYNC_USER, b"body", 5, ends_at - 1, ends_at, caller or Caller())


def test_commands_are_taken_in_their_order_without_those_whose_callers_have_gone() -> None:
    pending = PendingCommands()
    assert [pending.add(command(name)) for name in (b"a", b"b", b"c", b"d")] == [1, 2, 3, 4]
    assert pending.remove(b"b") == 4
    assert (len(pending), pending.waiting) == (3, 4)
    assert [found.id for found in pending.take(3)] == [b"a", b"c"]
    assert repr(pending) == "PendingCommands(3, 1 to be sent)"
    assert [found.id for found in pending.take(3)] == [b"d"]


def test_what_is_put_back_comes_before_what_is_new() -> None:
    pending = PendingCommands()
    for name in (b"a", b"b"):
        pending.add(command(name))
    taken = pending.take(2)
    taken[0].entry_id = "1-0"
    pending.add(command(b"c"))
    pending.put_back(taken)
    assert taken[0].entry_id == ""
    assert [found.id for found in pending.take(9)] == [b"a", b"b", b"c"]


def test_an_answer_goes_to_who_waits_for_it() -> None:
    pending, caller = PendingCommands(), Caller()
    pending.add(command(b"a", caller))
    pending.hand_over(b"a", Reply(body=b"1").encode())
    pending.hand_over(b"a", Reply().encode())
    pending.hand_over(b"nobody", Reply().encode())
    assert caller.replies == [Reply(body=b"1"), Reply()]
    caller.gone = True
    pending.hand_over(b"a", Reply().encode())
    pending.fail(BusUnavailableError("away"))
    assert len(caller.replies) == 2
    assert pending.expects(b"a")
    pending.remove(b"a")
    assert not pending.expects(b"a")


def test_callers_are_told_when_their_time_is_up() -> None:
    pending, early, late = PendingCommands(), Caller(), Caller()
    pending.add(command(b"early", early, ends_at=3))
    pending.add(command(b"late", late, ends_at=4))
    pending.fail_overdue(3.5)
    [reply] = early.replies
    assert isinstance(reply.error, DeadlineExceededError)
    assert str(reply.error) == "no answer from the supervisor within 5 s"
    assert late.replies == []


def test_all_or_some_are_told_of_an_error() -> None:
    pending, one, two = PendingCommands(), Caller(), Caller()
    first = command(b"1", one)
    pending.add(first)
    pending.add(command(b"2", two))
    error = BusUnavailableError("away")
    pending.fail(error, [first])
    assert (one.replies, two.replies) == ([Reply(error=error)], [])
    pending.fail(error)
    assert (len(one.replies), len(two.replies)) == (2, 1)


def test_what_has_waited_for_long_is_found_by_its_entry() -> None:
    pending = PendingCommands()
    for number, (entry_id, sent_at) in enumerate([("1-0", 1.0), ("1-0", 1.0), ("2-0", 2.0), ("", 0.0)]):
        found = command(b"%d" % number)
        found.entry_id, found.sent_at = entry_id, sent_at
        pending.add(found)
    assert {entry: [c.id for c in held] for entry, held in pending.sent_before(2.0).items()} == {"1-0": [b"0", b"1"]}
    assert list(pending.sent_before(9.0)) == ["1-0", "2-0"]
