"""Making the core have users as desired: at once, in a rollout where they are many, and what becomes of refused ones."""

from __future__ import annotations

from typing import Any, cast

from pgnode.store.changes import Journal
from pgnode.supervisor.users.answers import Applied
from pgnode.supervisor.users.applying import UserApplier
from pgnode.supervisor.users.core_users import Outcome
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rollout import StepLimits
from pgnode.supervisor.users.table import Phase, UserTable
from pgnode.xray.config.inbounds import InboundSpec
from tests.unit.supervisor.users.models import VLESS, CredentialCore, vless_user

INBOUNDS = {"vless": VLESS}


class Stage:
    def __init__(self, *, swapped: bool = False) -> None:
        journal = Journal()
        self.core = CredentialCore()
        self.table = UserTable(journal)
        self.rejected = RejectedUsers(journal, lambda: 0.0)
        self.asked: list[float] = []
        self.swapped = swapped
        limits = StepLimits(slice_users=2, slice_calls=4, rollout_users=3)
        self.applier = UserApplier(cast(Any, self.core), self.table, self.rejected, limits, self._policy)

    def _policy(self, _inbound: InboundSpec, calls: int, _users: int, since: float) -> bool:
        self.asked.append(since)
        return self.swapped and calls > 2

    def put(self, **numbers: int) -> None:
        for name, number in numbers.items():
            self.table.put(name, vless_user(name, number).SerializeToString(deterministic=True))


async def test_nothing_is_done_where_everybody_is_in_step() -> None:
    stage = Stage()
    assert await stage.applier.apply(["alice"], INBOUNDS) == Applied()
    assert stage.core.calls == 0


async def test_few_users_are_altered_at_once_and_many_in_slices() -> None:
    stage = Stage()
    stage.put(a=1, b=2)
    await stage.applier.apply(stage.table.all_known(), INBOUNDS)
    stage.put(c=3, d=4, e=5, f=6)
    await stage.applier.apply(stage.table.all_known(), INBOUNDS)
    assert stage.core.numbers == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5, "f": 6}
    assert stage.table.differing_all() == []


async def test_an_inbound_is_swapped_where_the_policy_says_so() -> None:
    stage = Stage(swapped=True)
    stage.put(a=1, b=2, c=3)
    await stage.applier.apply(["a", "b", "c"], INBOUNDS)
    assert stage.core.calls == 2
    assert stage.core.numbers == {"a": 1, "b": 2, "c": 3}
    stage.put(a=4)
    await stage.applier.apply(["a"], INBOUNDS)
    assert stage.asked[-1] < float("inf"), "it knows when the inbound was swapped last"


async def test_nobody_else_swaps_while_a_bulk_change_is_rolled_out() -> None:
    stage = Stage(swapped=True)
    stage.put(a=1, b=2, c=3)
    applied = Applied()
    rollout = await stage.applier.begin_rollout(["a", "b", "c"], INBOUNDS)
    asked = len(stage.asked)
    stage.put(d=4, e=5)
    await stage.applier.apply(["d", "e"], INBOUNDS)
    assert len(stage.asked) == asked
    while not rollout.done:
        await stage.applier.step_rollout(rollout, applied, INBOUNDS, float("inf"))
    assert applied == Applied()
    assert stage.core.numbers == {"a": 1, "b": 2, "c": 3, "d": 4, "e": 5}
    assert stage.table.differing_all() == []


async def test_a_refused_user_stays_as_it_was() -> None:
    stage = Stage()
    stage.put(a=1)
    await stage.applier.apply(["a"], INBOUNDS)
    stage.put(a=2, b=3)
    refused_once = {"a"}
    alter = stage.core.alter

    async def refuse_once(plans: Any, *, chained: bool = False) -> Outcome:
        stage.core.refuses = set(refused_once)
        refused_once.clear()
        return await alter(plans, chained=chained)

    stage.core.alter = refuse_once  # type: ignore[method-assign]
    applied = await stage.applier.apply(["a", "b"], INBOUNDS)
    assert {key: str(refusal) for key, refusal in applied.refused.items()} == {"a": "a: the core said no"}
    assert stage.core.numbers == {"a": 1, "b": 3}
    assert stage.rejected.get("a") is not None
    assert stage.table.differing_all() == []


async def test_of_a_user_whom_the_core_refuses_again_and_again_nothing_stays() -> None:
    stage = Stage()
    stage.put(a=1)
    await stage.applier.apply(["a"], INBOUNDS)
    stage.core.refuses = {"a"}
    stage.put(a=2)
    await stage.applier.apply(["a"], INBOUNDS)
    assert stage.core.numbers == {}
    assert stage.table.all_known() == set()


async def test_a_user_whose_call_failed_is_unknown_and_whoever_is_applied_leaves_the_list() -> None:
    stage = Stage()
    stage.put(a=1, b=2)
    stage.rejected.put("b", "b", "no", b"", by_core=True)
    stage.core.silent_about = {"a"}
    applied = await stage.applier.apply(["a", "b"], INBOUNDS)
    assert applied.unanswered == {"a"}
    assert applied.error is not None
    assert stage.table.phase("a") is Phase.UNKNOWN
    assert list(stage.rejected) == []
