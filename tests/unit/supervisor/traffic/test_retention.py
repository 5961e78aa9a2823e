"""Users who were removed are forgotten, once everything was reported."""

from __future__ import annotations

from pgnode.store.changes import Journal
from pgnode.supervisor.traffic.figures import SLICE, TrafficFigures
from pgnode.supervisor.traffic.retention import Retention


class Stage:
    def __init__(self, users: int = 4) -> None:
        self.wanted = {"u0"}
        self.delivered = 0
        self.figures = TrafficFigures(Journal())
        self.users = users
        self.retention = Retention(self.figures, lambda email: email in self.wanted, lambda: self.delivered)

    async def read(self, run: str, value: int) -> None:
        await self.figures.count(run, [(f"user>>>u{n}>>>traffic>>>uplink", value) for n in range(self.users)])

    def report(self, *users: int) -> None:
        """Everything of these users reaches a caller."""
        self.figures.ledger.lend("loan", [f"user>>>u{n}>>>traffic>>>uplink" for n in users])
        self.figures.ledger.settle("loan", delivered=True)
        self.delivered += 1

    @property
    def shown(self) -> set[str]:
        return set(self.figures.encoded["user"].names())

    @property
    def counted(self) -> set[str]:
        return {name.split(">>>")[1] for name in self.figures.ledger.names()}


async def test_only_who_was_removed_and_is_owed_nothing_is_left_out() -> None:
    stage = Stage()
    await stage.read("run", 10)
    stage.report(0, 1, 2)
    await stage.retention.forget_removed(1)
    assert stage.shown == {"u0", "u3"}
    assert stage.counted == {"u0", "u1", "u2", "u3"}, "the running core still counts them"
    await stage.read("another run", 0)
    await stage.retention.forget_removed(1)
    assert stage.counted == {"u0", "u3"}
    assert "Retention" in repr(stage.retention)


async def test_nothing_is_searched_for_while_nothing_changed() -> None:
    stage = Stage()
    await stage.read("run", 10)
    await stage.retention.forget_removed(1)
    stage.report(1)
    stage.delivered -= 1  # as if nobody had been told
    await stage.retention.forget_removed(1)
    assert "u1" in stage.shown
    await stage.retention.forget_removed(2)
    assert "u1" not in stage.shown


async def test_a_large_number_of_users() -> None:
    stage = Stage(users=SLICE + 5)
    await stage.read("run", 10)
    stage.report(*range(SLICE + 5))
    await stage.retention.forget_removed(1)
    assert stage.shown == {"u0"}
