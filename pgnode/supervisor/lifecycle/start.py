"""``/start``: from whatever runs to what is asked for, on the way that disturbs users least.

The base config that runs already means that users are reconciled; one that differs in parts that a running core can change
means that these are changed; anything else is a new core. Called with the node's turn held.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import structlog

from pgnode.bus.commands import Command
from pgnode.errors import InvalidRequestError, NodeError, StartFailedError, UnsupportedError
from pgnode.settings import Settings
from pgnode.supervisor.lifecycle.core_lifecycle import CoreLifecycle
from pgnode.supervisor.lifecycle.hot_change import HotChange, HotChangePlan, prepare
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import WITH_CORE, State, Trigger
from pgnode.supervisor.routing.changes import Routing
from pgnode.supervisor.users.intake import Check
from pgnode.supervisor.users.render import ClientJsonCache
from pgnode.supervisor.users.sync import Remembered, UserSync
from pgnode.supervisor.users.table import Refusal
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.diff import Capabilities, Decision, StartStrategy, decide
from pgnode.xray.config.ports import check_ports_in_thread, listeners

log = structlog.get_logger(__name__)


class Starts:
    """Carries out starts, one at a time."""

    def __init__(self, settings: Settings, life: CoreLifecycle, users: UserSync, routing: Routing) -> None:
        self._settings = settings
        self._life = life
        self._users = users
        self._routing = routing
        #: How often each way was taken, since this supervisor began.
        self.ways: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"Starts({dict(self.ways)})"

    async def start(self, command: Command, core_version: str) -> None:
        """Do what the command asks for, or raise a NodeError; then what ran before runs, if that was possible."""
        request = pb.Backend.FromString(command.body)
        if request.type != pb.XRAY:
            raise UnsupportedError("this node runs the Xray core only; type must be XRAY")
        if not request.config:
            raise InvalidRequestError("config is empty: send a whole Xray config as JSON")
        users = list(request.users)
        del request.users[:]
        new = RunSpec.read(request, self._settings)
        for warning in new.base.warnings:
            log.warning("config", warning=warning)

        decision = self._decide(new, core_version)
        if decision.strategy is StartStrategy.NEW_CORE:
            # Its process comes up while everything else is done.
            self._life.core.warm_up()
        try:
            await self._carry_out(new, users, decision)
        finally:
            await self._life.core.discard_runner()

    async def _carry_out(self, new: RunSpec, users: Sequence[pb.User], decision: Decision) -> None:
        prepared = None
        if decision.strategy is not StartStrategy.SAME:
            await self._check(new)
            decision, prepared = await self._prepared(new, decision)
        log.info(
            "start", way=str(decision.strategy), reason=decision.reason, users=len(users), state=str(self._life.state)
        )
        self.ways[str(decision.strategy)] += 1
        if decision.strategy is StartStrategy.NEW_CORE:
            refusals = await self._new_core(new, users)
        else:
            refusals = await self._keep_core(new, users, prepared)
        self._life.record()
        if refusals:
            log.warning("start: users left out", count=len(refusals), first=str(refusals[0]))

    def _decide(self, new: RunSpec, core_version: str) -> Decision:
        life = self._life
        if life.state not in WITH_CORE or life.core.running is None or life.core_backend is None:
            return Decision(StartStrategy.NEW_CORE, "no core runs")
        if life.api_error and life.state is State.RUNNING and life.core_backend.base.base_hash != new.base.base_hash:
            return Decision(StartStrategy.NEW_CORE, f"the core's API does not answer: {life.api_error}")
        running = self._routing.table.effective(life.core_backend.base)
        return decide(running, new.base, Capabilities.of(core_version))

    async def _check(self, new: RunSpec) -> None:
        """Everything that can be known about a config before anything that runs is touched."""
        life = self._life
        runs = life.core_backend if life.core.running is not None else None
        held = runs.base.inbounds if runs is not None else ()
        await check_ports_in_thread(new.base.inbounds, {listener for spec in held for listener in listeners(spec)})
        if life.state is not State.IDLE:
            await life.core.check(self._routing.table.effective(new.base))
        # Else nothing runs that could be lost: the start itself is the check, a whole process cheaper.

    async def _prepared(self, new: RunSpec, decision: Decision) -> tuple[Decision, HotChangePlan | None]:
        if decision.strategy is not StartStrategy.PARTS:
            return decision, None
        try:
            return decision, await prepare(self._settings, self._life.core.core, new, decision)
        except StartFailedError as error:
            return Decision(StartStrategy.NEW_CORE, f"{decision.reason}, but not by parts: {error.text}"), None

    # --- the core stays -----------------------------------------------------------------------------------------

    async def _keep_core(self, new: RunSpec, users: Sequence[pb.User], prepared: HotChangePlan | None) -> list[Refusal]:
        """Users are changed, and parts of the core where there is something ``prepared``; everything else goes on."""
        life = self._life
        lingered = life.state is State.LINGERING
        fallback = life.backend
        previous = self._users.remember()
        if lingered:
            life.end_timer()
            life.go(Trigger.START_REQUESTED)
        error: NodeError | None = None
        refusals: list[Refusal] = []
        try:
            if prepared is None:
                refusals = await self._users.replace(users, new.inbounds)
                applied = await self._users.apply(self._users.table.all_known(), new.inbounds)
                refusals += applied.refused.values()
                error = applied.error
            else:
                refusals = await self._users.replace(users, new.inbounds, check=Check.ALL)
                refusals += await self._change(new, prepared)
        except Exception as failure:
            # Whatever it was: what runs now is not what is stored, and must not stay.
            expected = isinstance(failure, NodeError)
            log.warning("the core could not be changed, starting a new one", error=str(failure), exc_info=not expected)
            self.ways[f"{StartStrategy.PARTS}, failed"] += 1
            if not lingered:
                life.go(Trigger.START_REQUESTED)
            await self._replace_core(fallback, new, previous)
            return refusals
        life.core_backend = new
        life.shall_run(new)
        if prepared is None:
            life.core.follow_logs(new.base)
        else:
            await life.core.follow(new.base, lambda: life.render(new))
        await self._users.try_failed_again(new.inbounds)
        if not lingered:
            if error is not None:
                raise error
            return refusals
        error = error or await life.silent()
        if error is not None:
            # It may have hung since the stop, and nobody has been told yet that it runs.
            log.warning("the core that lingered does not answer", error=error.text)
            await self._replace_core(None, new, previous)
        else:
            life.go(Trigger.CORE_READY)
        return refusals

    async def _change(self, new: RunSpec, prepared: HotChangePlan) -> list[Refusal]:
        """Change parts of the core, and users everywhere else. Raises NodeError: then the core is neither this nor that."""
        change = HotChange(self._life.core, prepared, new, self._settings.core_call_timeout_seconds)
        await change.carry_out(self._users.table)
        await self._routing.settle(new.base, sure=False)
        added = prepared.parts.add_inbounds
        untouched = {tag: spec for tag, spec in new.inbounds.items() if tag not in added}
        table = self._users.table
        before = {key: table.applied(key) for key in change.refused}
        applied = await self._users.apply(table.all_known(), untouched)
        error, refusals = applied.error, list(applied.refused.values())
        if applied.refused:
            # As before in the untouched inbounds by now; those that were added have the user that was refused.
            table.core_uncertain(applied.refused)
            error = error or (await self._users.apply(applied.refused, new.inbounds)).error
        if change.refused:
            refusals += (await self._users.refuse(change.refused, before, new.inbounds)).values()
        if error is not None:
            raise error
        await change.finished()
        return refusals

    # --- a new core ---------------------------------------------------------------------------------------------

    async def _new_core(self, new: RunSpec, users: Sequence[pb.User]) -> list[Refusal]:
        life = self._life
        previous = self._users.remember()
        # A config that did not stay up is nothing to come back to.
        fallback = life.backend if life.state is not State.FAILED else None
        life.go(Trigger.START_REQUESTED)
        clients = ClientJsonCache(new.inbounds)
        refusals = await self._users.replace(users, new.inbounds, check=Check.ALL, clients=clients)
        life.policy.reset()
        await self._replace_core(fallback, new, previous, clients)
        return refusals

    async def _replace_core(
        self, old: RunSpec | None, new: RunSpec, previous: Remembered, clients: ClientJsonCache | None = None
    ) -> None:
        """End the running core and start one with ``new``; bring ``old`` back when that one does not come up."""
        life = self._life
        life.backend = new
        try:
            # While the old core still serves.
            rendered = await life.render(new, clients)
            await life.end_core()
            await life.start_core(new, rendered)
        except NodeError as error:
            self._users.return_to(previous)
            life.backend = old
            life.record()
            if old is None:
                life.go(Trigger.START_FAILED)
                raise
            log.warning("start: the new core did not come up, bringing the old one back", error=error.text)
            try:
                await life.start_core(old)
            except NodeError as second:
                life.bring_back_later(None, second.text)
                raise StartFailedError(
                    f"{error.text}; and the previous config did not come up either: {second.text}"
                ) from None
            life.go(Trigger.CORE_READY)
            raise StartFailedError(f"{error.text}; the previous config runs again") from None
        life.go(Trigger.CORE_READY)
