"""Steps of what a supervisor does, and how it is killed in each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from tests.faults.conftest import Stage

#: A fault point, and how many passes go first.
Step = tuple[str, int]
#: Picks the steps that are tried in this round.
Chosen = Callable[[Sequence[Step]], Sequence[Step]]

UPDATE = (
    ("step.make_change", 0),
    ("step.start_core", 0),
    ("step.complete_core", 0),
)
#: Users are connected to the new core by then.
SELECTION = ("core_update.exchanged", "core_select.half_done", "core_update.selected")
RESET = (("step.record", 0), ("step.end_core", 0))
#: The core has ended by then; a supervisor that is killed in these has it back, with all its users.
RESET_NOT_STORED = (("step.forget_state", 0), ("step.commit", 0), ("commit.desired", 0))
RESET_STORED = (("commit.desired_stored", 0), ("step.publish", 0))

#: Tried every time; all others in the first round of several, as `make faults` has them.
ALWAYS = {
    ("step.apply_users", 0),
    ("step.change_core", 0),
    ("hot_change.half_done", 0),
    ("core.record_again", 1),
    ("step.end_core", 0),
    ("step.start_core", 0),
    ("supervisor.bus_ready", 0),
    ("step.take_over_core", 0),
    ("step.commit", 0),
    ("commit.desired", 0),
}


def steps_chosen(steps: Sequence[Step], *, whole: bool) -> list[Step]:
    """All of them, or those that are tried every time."""
    return [step for step in steps if whole or step in ALWAYS]


async def killed_at_each(stage: Stage, steps: Sequence[Step], act: Callable[[int], Awaitable[bool]]) -> None:
    """Do something again and again, and kill the supervisor at each step of it; all is well each time."""
    for number, (point, skip) in enumerate(steps):
        stage.faults.arm(point, "kill", skip=skip)
        assert not await act(number), point
        assert stage.faults.reached_by(point) == stage.node.pid, point
        await stage.struck_down()
        await stage.check()
    stage.trial.tried(len(steps))
