"""What happens to the node, as data: requests, things that happen by themselves, and outcomes of actions. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pgnode.supervisor.lifecycle.actions import Question

if TYPE_CHECKING:
    from pgnode.errors import NodeError
    from pgnode.supervisor.lifecycle.run_spec import RunSpec
    from pgnode.xray.config.diff import Decision


@dataclass(frozen=True, slots=True)
class Event:
    """Anything that happens."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, and a random number for the jitter of pauses."""

    #: Monotonic seconds.
    now: float
    #: A random number in [0, 1).
    chance: float


class Found(enum.Enum):
    """What a new supervisor finds of the one before it."""

    NOTHING = enum.auto()
    #: A core that runs what is desired.
    MATCHING = enum.auto()
    #: A core with another config, or another core.
    OTHER = enum.auto()
    #: A core, and nobody knows what has to run.
    UNASKED = enum.auto()


# --- requests, one after the other -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request(Event):
    """Something to be done. What was under way is complete, or was interrupted."""


@dataclass(frozen=True, slots=True)
class SupervisorStarted(Request):
    """The store says what has to run (None: nothing), and how many cores were started so far."""

    desired: RunSpec | None
    core_run: int


@dataclass(frozen=True, slots=True)
class StartRequested(Request):
    """A caller asks for this to run. ``diff`` is how the running core could get there, None where none runs."""

    spec: RunSpec
    diff: Decision | None


@dataclass(frozen=True, slots=True)
class StartRefused(Request):
    """A caller asks for a start that cannot even be read."""

    error: NodeError


@dataclass(frozen=True, slots=True)
class StopRequested(Request):
    """A caller asks for a stop. The core may linger for so many seconds, 0 for not at all."""

    linger_seconds: float


@dataclass(frozen=True, slots=True)
class KeepAliveExpired(Request):
    """The panel is silent, which counts as a stop, unless somebody decided something since."""

    #: Life.decisions when the silence was noticed.
    decisions: int
    linger_seconds: float


@dataclass(frozen=True, slots=True)
class ExchangeRequested(Request):
    """Maintenance asks for a new core, with something changed while none runs."""


@dataclass(frozen=True, slots=True)
class ResetRequested(Request):
    """Maintenance asks for everything to be forgotten."""


@dataclass(frozen=True, slots=True)
class CoreDied(Request):
    """The core of that run ended by itself; the exit code is not known of one that was adopted."""

    core_run: int
    exit_code: int | None
    at: Moment


@dataclass(frozen=True, slots=True)
class CoreHung(Request):
    """The core of that run gave no sign of life for so many seconds."""

    core_run: int
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class RetryDue(Request):
    """The pause of RetryLater is over."""


@dataclass(frozen=True, slots=True)
class LingerEnded(Request):
    """The pause of LingerFor is over."""


@dataclass(frozen=True, slots=True)
class ShutdownRequested(Request):
    """The supervisor ends; what has to run stays in the store."""


# --- news, at any time ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class News(Event):
    """Something to take note of; nothing that is under way is disturbed."""


@dataclass(frozen=True, slots=True)
class ApiProbed(News):
    """What the last call of that core's API said: "" when it answered."""

    core_run: int
    error: str


@dataclass(frozen=True, slots=True)
class PanelNoticed(News):
    """The panel has been silent for longer than its keep_alive, or it calls again."""

    away: bool


# --- outcomes --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome(Event):
    """How an action ended."""

    action: Question


@dataclass(frozen=True, slots=True)
class Done(Outcome):
    """It was done."""


@dataclass(frozen=True, slots=True)
class Failed(Outcome):
    """It was not done, or only in part."""

    error: NodeError
    at: Moment


@dataclass(frozen=True, slots=True)
class CoreFound(Outcome):
    """FindCore is done."""

    found: Found
    #: What the core runs, where that is not what is desired, or not known to be.
    spec: RunSpec | None = None
    #: Why it is not known what has to run; "" where it is.
    unknown: str = ""


@dataclass(frozen=True, slots=True)
class UsersApplied(Outcome):
    """ApplyUsers is done; ``unanswered``: the core did not answer for some, who are tried again later."""

    unanswered: NodeError | None = None
