"""Changes of users are counted with what became of them."""

from __future__ import annotations

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import CoreUnavailableError, UsersRefusedError
from pgnode.supervisor.commands.change_times import ChangeTimes


def command(kind: Kind) -> Command:
    return Command("5000-1", "id", kind, "worker", 1000, b"")


def test_results_and_times() -> None:
    times = ChangeTimes(lambda: 5250.0)
    times.answered(
        [
            (command(Kind.SYNC_USER), Reply()),
            (command(Kind.SYNC_USER), Reply(error=UsersRefusedError("bob"))),
            (command(Kind.SYNC_USERS), Reply(error=CoreUnavailableError("away"))),
            (command(Kind.START), Reply()),
        ]
    )
    assert times.results == {("sync_user", "ok"): 1, ("sync_user", "refused"): 1, ("sync_users", "failed"): 1}
    assert {labels: (sum(b[:-1]), b[-1]) for labels, b in times.seconds.items()} == {
        ("sync_user",): (2, 0.5),
        ("sync_users",): (1, 0.25),
    }
    assert repr(times) == "ChangeTimes(3 changes)"


def test_a_clock_that_was_set_back_gives_no_negative_time() -> None:
    times = ChangeTimes(lambda: 1000.0)
    times.answered([(command(Kind.SYNC_USER), Reply())])
    assert [buckets[-1] for _, buckets in times.seconds.items()] == [0]
