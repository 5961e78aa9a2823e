"""Whatever happens, in whatever order, and wherever it is interrupted: a supervisor that comes next puts it right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from pgnode.errors import StartFailedError
from pgnode.supervisor.lifecycle import actions as do
from pgnode.supervisor.lifecycle import events as on
from pgnode.supervisor.lifecycle.events import Event, Found, Moment
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.machine import transition
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import TABLE, State, Trigger
from pgnode.supervisor.lifecycle.tasks import ShutdownTask
from pgnode.testing.run_specs import make_run_spec
from pgnode.xray.config.diff import Decision, StartStrategy

SPECS = [make_run_spec("a"), make_run_spec("b"), make_run_spec("c")]
#: What a core runs that was changed half way.
NEITHER = make_run_spec("neither")


class _BrokenOffError(Exception):
    """The shell was cancelled in the middle of something, or the supervisor was killed."""

    def __init__(self, life: Life) -> None:
        super().__init__()
        self.life = life


#: What a shell can be cancelled in; the others are done at once.
SLOW = (do.Question, do.Commit, do.Publish, do.LearnVersion)


@dataclass
class World:
    """What the shell would see: processes, the store, a timer."""

    data: st.DataObject
    #: What each core process runs.
    cores: list[RunSpec] = field(default_factory=list)
    stored: RunSpec | None = None
    core_run: int = 0
    journal: do.Record | None = None
    timer: Event | None = None
    now: float = 0.0
    #: Everything goes well from now on.
    calm: bool = False

    def chance(self, percent: int) -> bool:
        return not self.calm and self.data.draw(st.integers(1, 100)) <= percent

    def feed(self, life: Life, event: Event) -> Life:
        """Do what follows from an event, to its end; raises where it is interrupted, with what is known by then."""
        events: list[Event] = [event]
        while events:
            life, actions = transition(life, events.pop(0))
            for action in actions:
                if isinstance(action, SLOW) and self.chance(2):
                    raise _BrokenOffError(life)
                outcome = self.carry_out(action)
                if outcome is not None:
                    assert action is actions[-1]
                    events.append(outcome)
                    if self.chance(2):
                        raise _BrokenOffError(life)
        return life

    def carry_out(self, action: do.Action) -> Event | None:
        self.now += 0.1
        match action:
            case do.Record():
                self.journal = action
            case do.Commit() | do.Answer() if self.journal is not None and not self.chance(10):
                self.stored, self.core_run, self.journal = self.journal.desired, self.journal.core_run, None
            case do.RetryLater() | do.GiveUp():
                self.timer = on.RetryDue()
            case do.LingerFor():
                self.timer = on.LingerEnded()
            case do.CancelTimer():
                self.timer = None
            case do.ReapCore():
                assert not self.cores
            case do.Question():
                return self.answer(action)
        return None

    def answer(self, question: do.Question) -> Event:
        match question:
            case do.FindCore(desired):
                return on.CoreFound(question, self.found(desired))
            case do.EndCore():
                self.cores.clear()
                return on.Done(question)
        if self.chance(25):
            match question:
                case do.ChangeCore() if self.cores:
                    self.cores = [NEITHER]
            return on.Failed(question, StartFailedError("no"), Moment(self.now, 0.5))
        match question:
            case do.StartCore(spec):
                assert self.cores == [], "two cores"
                self.cores.append(spec)
            case do.ChangeCore(spec) if self.cores:
                self.cores = [spec]
            case do.ApplyUsers(spec):
                return on.UsersApplied(question, StartFailedError("no") if self.chance(20) else None)
        return on.Done(question)

    def found(self, desired: RunSpec | None) -> Found:
        if not self.cores:
            return Found.NOTHING
        return Found.MATCHING if self.cores == [desired] else Found.OTHER

    def happens(self, life: Life) -> Event:
        """Something that may happen now."""
        choices = ["start", "start", "stop", "exchange", "reset", "silence", "late death"]
        choices += ["late timer"] if life.state is not State.LINGERING else []
        choices += ["death"] * 4 if self.cores else []
        choices += ["timer"] * 4 if self.timer is not None else []
        match self.data.draw(st.sampled_from(choices)):
            case "start":
                spec = SPECS[self.data.draw(st.integers(0, 2))]
                way = (
                    StartStrategy.SAME
                    if life.core is spec
                    else self.data.draw(st.sampled_from(["hot change", "new core"]))
                )
                return on.StartRequested(spec, Decision(StartStrategy(way), "x") if life.core is not None else None)
            case "stop":
                return on.StopRequested(self.data.draw(st.sampled_from([0.0, 10.0])))
            case "exchange":
                return on.ExchangeRequested()
            case "reset":
                return on.ResetRequested()
            case "silence":
                return on.ApiProbed(life.core_run, self.data.draw(st.sampled_from(["", "deadline"])))
            case "death":
                self.cores.clear()
                return on.CoreDied(life.core_run, self.data.draw(st.sampled_from([23, 255])), Moment(self.now, 0.5))
            case "timer" if self.timer is not None:
                timer, self.timer = self.timer, None
                return timer
            case "late timer":
                # One that was forgotten while it waited for its turn.
                waits = life.state in (State.RECOVERING, State.FAILED)
                return on.LingerEnded() if waits else on.RetryDue()
        return on.CoreDied(life.core_run - 1, 0, Moment(self.now, 0.5))


def at_rest(life: Life, world: World) -> None:
    """What holds whenever nothing is under way."""
    assert life.task is None
    assert life.core_run >= 0
    assert life.timer == (world.timer is not None)
    match life.state:
        case State.IDLE:
            assert (life.desired, life.core, world.cores) == (None, None, [])
        case State.RUNNING:
            assert life.core == life.desired
            assert world.cores == [life.core]
        case State.LINGERING:
            assert life.desired is None
            assert world.cores == [life.core]
            assert life.timer != life.held
        case State.RECOVERING | State.FAILED:
            assert life.desired is not None
            assert (life.core, world.cores) == (None, [])
            assert life.timer
        case _:
            raise AssertionError(f"nothing is under way, and the node is {life.state}")


@given(st.data())
def test_any_prefix_then_a_crash_and_a_restart_ends_right(data: st.DataObject) -> None:
    world = World(data)
    life = Life(State.IDLE)
    crashed = False
    for _ in range(data.draw(st.integers(1, 12))):
        try:
            life = world.feed(life, world.happens(life))
            if life.task is None:
                at_rest(life, world)
        except _BrokenOffError as broken:
            life = broken.life
            crashed = data.draw(st.booleans())
            if crashed:
                break
    if not crashed and life.task is not None:
        # The last thing that was interrupted is followed by a call that is not.
        world.calm = True
        life = world.feed(life, on.StopRequested(0.0))
        at_rest(life, world)
        assert life.state is State.IDLE
        return
    # The supervisor is gone; its core may be, too. What was not stored never was.
    world.calm, world.timer, world.journal = True, None, None
    if data.draw(st.booleans()):
        world.cores.clear()
    desired = world.stored
    life = world.feed(Life(), on.SupervisorStarted(desired, world.core_run))
    at_rest(life, world)
    assert life.desired == desired
    assert life.state is (State.RUNNING if desired is not None else State.IDLE)


# --- every state that can be reached -----------------------------------------------------------------------------------

#: (state, trigger) of every move that was made.
MOVES: set[tuple[State, Trigger]] = set()


class _WatchedLife(Life):
    """Notes its moves."""

    def move(self, trigger: Trigger) -> Life:
        MOVES.add((self.state, trigger))
        return super().move(trigger)


def requests(life: Life) -> Iterator[Event]:
    at = Moment(0.0, 0.5)
    for spec in SPECS[:1]:
        yield on.StartRequested(spec, None)
        for way in StartStrategy:
            yield on.StartRequested(spec, Decision(way, "x"))
    yield from (on.StopRequested(0.0), on.StopRequested(10.0), on.KeepAliveExpired(life.decisions, 10.0))
    yield from (on.ExchangeRequested(), on.ResetRequested(), on.ShutdownRequested())
    yield from (
        on.RetryDue(),
        on.LingerEnded(),
        on.CoreDied(life.core_run, 255, at),
        on.CoreDied(life.core_run, 23, at),
        on.CoreHung(life.core_run, 60.0),
    )
    yield from (on.ApiProbed(life.core_run, "deadline"), on.ApiProbed(life.core_run, ""), on.PanelNoticed(True))


def outcomes(question: do.Question) -> Iterator[Event]:
    match question:
        case do.FindCore():
            yield from (on.CoreFound(question, found) for found in Found if found is not Found.UNASKED)
            yield on.CoreFound(question, Found.UNASKED, SPECS[0], "the store is new")
            yield on.CoreFound(question, Found.MATCHING, SPECS[1])
            yield on.CoreFound(question, Found.NOTHING, None, "the stored config cannot be read")
        case do.ApplyUsers():
            yield from (on.UsersApplied(question), on.UsersApplied(question, StartFailedError("x")))
        case _:
            yield on.Done(question)
    if not isinstance(question, do.FindCore):
        yield on.Failed(question, StartFailedError("x"), Moment(0.0, 0.5))


def key(life: Life) -> str:
    """What tells lives apart that may behave differently."""
    specs = ["" if spec is None else spec.base.base_hash[:4] for spec in (life.desired, life.core)]
    return f"{life.state} {specs} {bool(life.api_error)} {life.timer} {life.held} {life.unknown} {life.task!r}"


def test_the_table_is_what_the_machine_does() -> None:
    """Every life that can be reached has an answer to every request and every outcome, and makes no other moves."""
    seen: set[str] = set()
    lives: list[Life] = [_WatchedLife()]
    for desired in (None, SPECS[0]):
        lives.append(transition(_WatchedLife(), on.SupervisorStarted(desired, 1))[0])
    while lives:
        life = lives.pop()
        if key(life) in seen:
            continue
        seen.add(key(life))
        events = [*requests(life), *(outcomes(life.task.awaiting) if life.task is not None else ())]
        for event in events:
            after, actions = transition(life, event)
            questions = [action for action in actions if isinstance(action, do.Question)]
            assert questions == ([after.task.awaiting] if after.task is not None and questions else [])
            assert questions in ([], list(actions[-1:]))
            if not isinstance(life.task, ShutdownTask):  # nothing comes after that
                lives.append(after)
    assert set(TABLE) == MOVES
    assert len(seen) > 100
