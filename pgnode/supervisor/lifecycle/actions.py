"""What the machine asks the shell to do, as data. Pure.

A :class:`Question` has an outcome: the shell carries it out and tells the machine Done, Failed, or what the question's text
names (:mod:`pgnode.supervisor.lifecycle.events`). The machine asks at most one at a time, as its last action. The others are
small things to do at once; they have no outcome.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pgnode.errors import NodeError
    from pgnode.supervisor.lifecycle.run_spec import RunSpec
    from pgnode.xray.config.diff import Decision


@dataclass(frozen=True, slots=True)
class Action:
    """Anything the machine asks for."""


@dataclass(frozen=True, slots=True)
class Question(Action):
    """An action whose outcome the machine waits for."""


# --- without an outcome ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer(Action):
    """Tell the caller of the request how it ended; None for well."""

    error: NodeError | None = None


@dataclass(frozen=True, slots=True)
class Record(Action):
    """Put into the journal what has to run, and how many cores were started."""

    desired: RunSpec | None
    core_run: int


@dataclass(frozen=True, slots=True)
class Commit(Action):
    """Write the journal to the store, where no answer will do that."""


@dataclass(frozen=True, slots=True)
class Publish(Action):
    """Tell the workers the state of the node."""


@dataclass(frozen=True, slots=True)
class RetryLater(Action):
    """Send RetryDue after a pause."""

    delay_seconds: float
    #: Why there is no core.
    reason: str


@dataclass(frozen=True, slots=True)
class GiveUp(Action):
    """Say in the log that the core is given up, unless that was said, and send RetryDue after a long pause."""

    delay_seconds: float
    #: Why there is no core.
    reason: str
    #: Why it is not brought back at once.
    verdict: str
    #: It was given up before, and a try changed nothing.
    again: bool = False


@dataclass(frozen=True, slots=True)
class LingerFor(Action):
    """Send LingerEnded after a pause; the core goes on."""

    seconds: float


@dataclass(frozen=True, slots=True)
class CancelTimer(Action):
    """Forget the RetryDue or LingerEnded that is to come."""


@dataclass(frozen=True, slots=True)
class WarmUp(Action):
    """Let the process of a new core come up now; it waits for its config."""


@dataclass(frozen=True, slots=True)
class DiscardRunner(Action):
    """End the process that was warmed up, where no core was started in it."""


@dataclass(frozen=True, slots=True)
class CountStart(Action):
    """Count a start, and say in the log which strategy it uses and why."""

    decision: Decision


@dataclass(frozen=True, slots=True)
class CountFailedChange(Action):
    """Count a change of the running core that failed half way; a new core is started."""

    error: NodeError


@dataclass(frozen=True, slots=True)
class ReturnUsers(Action):
    """Make the users that were desired before the start the desired ones again."""


@dataclass(frozen=True, slots=True)
class ReapCore(Action):
    """Clear up after a core that died."""


@dataclass(frozen=True, slots=True)
class WatchCore(Action):
    """Watch a core that was found and goes on as it is; which users it has is not known."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class KillCore(Action):
    """Kill the core, which hangs, and say so in the log; what follows is what follows the death of any core."""

    #: For so many seconds it gave no sign of life.
    silent_seconds: float


@dataclass(frozen=True, slots=True)
class LearnVersion(Action):
    """Ask the core that the next start would run for its version."""


# --- with an outcome -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FindCore(Question):
    """Look for a core that an earlier supervisor left running. Outcome: CoreFound."""

    desired: RunSpec | None


@dataclass(frozen=True, slots=True)
class TakeOverCore(Question):
    """Watch the core that was found, and bring its users and routing to what is desired."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class CheckConfig(Question):
    """Check a config without touching anything that runs.

    ``by_core``: a process of its own tries it, too. Where nothing runs, the start itself is that trial.
    """

    spec: RunSpec
    by_core: bool


@dataclass(frozen=True, slots=True)
class PrepareHotChange(Question):
    """Ask a scratch core how it encodes the entries of the config that differ."""

    spec: RunSpec
    decision: Decision


@dataclass(frozen=True, slots=True)
class TakeInUsers(Question):
    """Make the start's users the desired ones; the earlier ones are kept for ReturnUsers.

    ``everyone``: those that did not change are checked as well.
    """

    spec: RunSpec
    everyone: bool


@dataclass(frozen=True, slots=True)
class ApplyUsers(Question):
    """Give the running core the desired users. Outcome: UsersApplied, or Failed when it is unknown which users it has."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class ChangeCore(Question):
    """Carry out the hot change. When it failed, the core is neither the old config nor the new one."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class FollowConfig(Question):
    """Apply what else depends on the config of a core that was kept: log files, rejected users."""

    spec: RunSpec
    #: The core was changed, too.
    changed: bool


@dataclass(frozen=True, slots=True)
class ProbeCore(Question):
    """Ask the core's API for a sign of life."""


@dataclass(frozen=True, slots=True)
class RenderConfig(Question):
    """Make the JSON of the next core's config, with its users, while the old one still serves."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class EndCore(Question):
    """Poll the counters a last time and end the core, if there is one."""


@dataclass(frozen=True, slots=True)
class StartCore(Question):
    """Start a core with all desired users. When it failed, there is none.

    ``rendered``: the config is the one of the last RenderConfig.
    """

    spec: RunSpec
    rendered: bool = False


@dataclass(frozen=True, slots=True)
class CompleteCore(Question):
    """Apply what a new core's config cannot hold: fixed balancers, rejected users."""

    spec: RunSpec


@dataclass(frozen=True, slots=True)
class MakeChange(Question):
    """Do what the core was ended for: install another core or other geo files."""


@dataclass(frozen=True, slots=True)
class UndoChange(Question):
    """Take back what MakeChange did."""


@dataclass(frozen=True, slots=True)
class ForgetState(Question):
    """Forget users and routing; the traffic ledger stays."""


# --- moments for tests -------------------------------------------------------------------------------------------------


def step_point(kind: type[Action]) -> str:
    """Name the fault point right before a step is carried out, such as ``step.start_core``."""
    return "step." + re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


#: The fault point of each step.
STEP_POINTS: Final = {
    kind: step_point(kind)
    for kind in list(globals().values())
    if isinstance(kind, type) and issubclass(kind, Action) and kind not in (Action, Question)
}
