"""The running core as the supervisor handles it: start, take over, stop, and changes of its users. All calls end in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from pgnode.errors import CoreUnavailableError, StartFailedError
from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings
from pgnode.supervisor.core.log_pump import LogPump
from pgnode.supervisor.users.client_json_cache import ClientJsonCache
from pgnode.supervisor.users.swap_policy import Change, InboundPlan
from pgnode.supervisor.users.table import UserTable
from pgnode.xray.client.api import AlterOperation, CoreApi, CoreApiError, ErrorKind, SwapFailedError
from pgnode.xray.config.accounts import Account, email_key, is_user, user_message
from pgnode.xray.config.document import PLACEHOLDER_EMAIL, BaseConfig, InboundSpec, render
from pgnode.xray.process.core import EXIT_CONFIG_REFUSED, Core, EmbeddedCore, RunningCore, adopt
from pgnode.xray.process.diagnose import find_refused_part
from pgnode.xray.process.runner import Runner
from pgnode.xray.proto.stats_command_pb2 import SysStatsResponse

log = structlog.get_logger(__name__)

#: Seconds a core has to end by itself before it is killed.
STOP_SECONDS = 3.0

#: Seconds spent on finding out which part of a config the core refuses; a panel waits 10 s for its start.
DIAGNOSIS_SECONDS = 5.0

#: Users encoded at a time before the event loop gets its turn.
SLICE = 1000


@dataclass(slots=True)
class Outcome:
    """What became of a set of changes."""

    #: Key -> the core's reason, for users that it does not take.
    refused: dict[str, str] = field(default_factory=dict)
    #: Keys of users whose calls did not come to an end, because the core does not answer.
    unanswered: set[str] = field(default_factory=set)
    #: Why not.
    error: str = ""

    def note(self, key: str, error: CoreApiError) -> None:
        """A call about the user ``key`` failed for good."""
        if error.kind in (ErrorKind.REFUSED, ErrorKind.ALREADY_EXISTS):
            self.refused[key] = str(error)
        else:
            self.unanswered.add(key)
            self.error = str(error)


def _addition(tag: str, change: Change) -> AlterOperation:
    assert change.new is not None
    email = change.new_email or ""
    return AlterOperation(tag, email, user_message(email, change.new))


class _ConfigRefusedError(StartFailedError):
    """The core refused the config when it was started with it."""


class CoreController:
    """At most one core. Belongs to the supervisor's loop; only :class:`~pgnode.supervisor.lifecycle.node.Node` calls it."""

    def __init__(self, settings: Settings, core: Core, pump: LogPump) -> None:
        self._settings = settings
        #: The core that the next start runs.
        self.core = core
        self._pump = pump
        self.running: RunningCore | None = None
        self.api: CoreApi | None = None
        #: A process that waits for the config of a core that is being started.
        self._runner: Runner | None = None
        #: The core's first figures, from when it came up.
        self.first_stats = SysStatsResponse()

    def __repr__(self) -> str:
        return f"CoreController({self.running!r})"

    @property
    def run_id(self) -> str:
        """Tells this core process from every other; the same for a supervisor that took it over."""
        if self.running is None:
            return ""
        record = self.running.record
        return f"{record.boot_id}:{record.pid}:{record.start_ticks}"

    async def version(self) -> str:
        """The version of the core that would be started. Raises StartFailedError."""
        return await self.core.version(self._settings.core_start_timeout_seconds)

    async def check(self, base: BaseConfig, other: Core | None = None) -> None:
        """Whether the core (or an ``other`` one) takes this config, without touching anything that runs.

        Raises StartFailedError.
        """
        core = other if other is not None else self.core
        limit = self._settings.core_start_timeout_seconds
        try:
            await core.check(render(base, {}), limit)
        except StartFailedError:
            if not isinstance(core, EmbeddedCore):
                raise
            # The library gives no reason, so the parts are tried one by one.

            async def accepted(config_json: str) -> bool:
                code, _ = await core.check_exit_code(config_json, limit)
                return code != EXIT_CONFIG_REFUSED

            deadline = asyncio.get_running_loop().time() + DIAGNOSIS_SECONDS
            raise StartFailedError(await find_refused_part(base.document, accepted, deadline)) from None

    async def refusal(self, base: BaseConfig) -> str:
        """Why a process of its own does not take this config, "" when it does. Nothing that runs is touched."""
        try:
            await self.core.check(render(base, {}), self._settings.core_start_timeout_seconds)
        except StartFailedError as error:
            return error.text
        return ""

    def warm_up(self) -> None:
        """A core will be started soon: let its process come up now. ``start`` takes it, else :meth:`cool_down` ends it."""
        if self._runner is None:
            self._runner = self.core.warm_up(self._settings.assets_dir)

    async def cool_down(self) -> None:
        """End the process that was warmed up, where no core was started in it."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.discard()

    async def start(
        self,
        base: BaseConfig,
        users: UserTable,
        inbounds: Mapping[str, InboundSpec],
        rendered: str | None = None,
    ) -> RunningCore:
        """Start a core with all desired users and wait until its API answers.

        ``rendered`` is what :meth:`render` returns for the same arguments, where it was called already.
        Raises StartFailedError with the core's own last lines; then no core is left.
        """
        try:
            # Its process comes up while the config is made.
            self.warm_up()
            config_json = rendered if rendered is not None else await self.render(base, users, inbounds)
            self._pump.tail.clear()
            self._pump.write_files(base.access_log_path, base.error_log_path)
            running = await self.core.spawn(
                *(config_json, self._settings.run_dir, self._settings.assets_dir),
                config_hash=base.base_hash,
                runner=self._runner,
            )
            self._runner = None
        finally:
            await self.cool_down()
        self._pump.watch(running.log_fd)
        self.running = running
        self.api = CoreApi(str(self._settings.core_socket))
        try:
            copy = asyncio.create_task(self._write_copy(config_json))
            try:
                await self._wait_ready(running, self.api)
            finally:
                await copy
        except _ConfigRefusedError as error:
            await self.stop()
            # The check says what is wrong; where it finds nothing, users made the difference.
            await self.check(base)
            raise StartFailedError(error.text) from None
        except StartFailedError:
            await self.stop()
            raise
        # Stands in for the users of a Shadowsocks-2022 inbound that starts without any.
        holders = [AlterOperation(tag, PLACEHOLDER_EMAIL) for tag, spec in inbounds.items() if spec.is_shadowsocks_2022]
        await self.api.alter_many(holders, self._settings.core_call_timeout_seconds)
        users.core_has_all()
        return running

    def follow_logs(self, base: BaseConfig) -> None:
        """The files that a config's log part names are written by the node, so they may change while the core runs."""
        self._pump.write_files(base.access_log_path, base.error_log_path)

    async def follow(self, base: BaseConfig, users: UserTable, inbounds: Mapping[str, InboundSpec]) -> None:
        """The running core was brought to this config: what else goes by it follows."""
        self.follow_logs(base)
        if self._settings.generated_config_path is not None:
            await self._write_copy(await self.render(base, users, inbounds))

    async def _wait_ready(self, running: RunningCore, api: CoreApi) -> None:
        """The core answers, or it has ended: whichever comes first."""
        limit = self._settings.core_start_timeout_seconds
        ended = asyncio.create_task(running.wait())
        ready = asyncio.create_task(api.wait_ready(limit))
        try:
            await asyncio.wait({ended, ready}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            if ended.done():
                self._pump.unwatch()
                tail = " | ".join(list(self._pump.tail)[-3:]) or "it printed nothing"
                code = ended.result()
                kind = _ConfigRefusedError if code == EXIT_CONFIG_REFUSED else StartFailedError
                raise kind(f"the core ended with exit code {code} while starting: {tail}")
            if not ready.done():
                raise StartFailedError(f"the core did not answer within {limit:g} s")
            try:
                self.first_stats = ready.result()
            except CoreApiError as error:
                raise StartFailedError(f"the core's API does not answer: {error}") from None
        finally:
            await end_tasks([ended, ready])

    def is_its(self, running: RunningCore) -> bool:
        """Whether a process runs the core that would be started now."""
        return running.record.core in ("", str(self.core))

    async def adopt(self) -> RunningCore | None:
        """Take over a core that an earlier supervisor left running; None when there is none. Its users are not known."""
        running = await adopt(self._settings.run_dir)
        if running is None:
            return None
        self.running = running
        self._pump.watch(running.log_fd)
        self.api = CoreApi(str(self._settings.core_socket))
        try:
            self.first_stats = await self.api.wait_ready(self._settings.core_call_timeout_seconds)
        except CoreApiError as error:
            log.warning("the core of an earlier run does not answer, ending it", pid=running.pid, error=str(error))
            await self.stop()
            return None
        return running

    async def stop(self) -> None:
        """End the core, if there is one."""
        running, self.running = self.running, None
        api, self.api = self.api, None
        if api is not None:
            await api.aclose()
        if running is not None:
            await running.terminate(STOP_SECONDS)
            self._pump.unwatch()
            running.close()

    async def alter(self, plans: Sequence[InboundPlan], *, chained: bool = False) -> Outcome:
        """Carry out ``plans``: all removals, and then all additions; or ``chained``, each addition behind its own removal.

        Chained is faster, and each user is away for a moment only; for plans in which no secret moves from one user to another.
        """
        outcome = Outcome()
        removals = [(plan.tag, change) for plan in plans for change in plan.changes if change.old_email is not None]
        additions = [(plan.tag, change) for plan in plans for change in plan.changes if change.new is not None]
        if chained:
            # Calls about one user of one inbound are made one after the other.
            await self._alter(removals, additions, outcome)
        else:
            await self._alter(removals, (), outcome)
            await self._alter((), [c for c in additions if c[1].key not in outcome.unanswered], outcome)
        return outcome

    async def _alter(
        self, removals: Sequence[tuple[str, Change]], additions: Sequence[tuple[str, Change]], outcome: Outcome
    ) -> None:
        if self.api is None:
            outcome.unanswered.update(change.key for _, change in (*removals, *additions))
            outcome.error = "the core has ended"
            return
        operations = [AlterOperation(tag, change.old_email or "") for tag, change in removals]
        operations += [_addition(tag, change) for tag, change in additions]
        results = await self.api.alter_many(operations, self._settings.core_call_timeout_seconds)
        if not any(results):
            return
        for (_, change), error in zip(removals, results, strict=False):
            if error is not None and error.kind is not ErrorKind.NOT_FOUND:
                outcome.note(change.key, error)
        again = []
        for (tag, change), error in zip(additions, results[len(removals) :], strict=True):
            if error is None:
                continue
            if error.kind is ErrorKind.ALREADY_EXISTS:
                # Somebody with this e-mail is there: with which account is not known, so make it ours.
                again.append((tag, change))
            else:
                outcome.note(change.key, error)
        if again:
            await self._replace(again, outcome)

    async def _replace(self, changes: Sequence[tuple[str, Change]], outcome: Outcome) -> None:
        api = self.api
        if api is None:
            return
        limit = self._settings.core_call_timeout_seconds
        await api.alter_many([AlterOperation(tag, change.new_email or "") for tag, change in changes], limit)
        results = await api.alter_many([_addition(tag, change) for tag, change in changes], limit)
        for (_, change), error in zip(changes, results, strict=True):
            if error is not None:
                outcome.note(change.key, error)

    async def prepare_swap(self, tag: str) -> None:
        """Learn how the core encodes this inbound, so that a swap has it at hand; where that fails, the swap will tell."""
        if self.api is not None:
            with contextlib.suppress(CoreApiError):
                await self.api.bare_inbound(tag, self._settings.core_call_timeout_seconds)

    async def swap(
        self, tag: str, messages: Sequence[bytes], before: Callable[[], Awaitable[Sequence[bytes]]]
    ) -> int | None:
        """Give an inbound exactly these users (serialized User messages); how many from their end did not fit.

        ``before`` makes the messages of those it has now, for when the core refuses.
        None where the core refused and has what it had before. Raises CoreUnavailableError when nothing is certain any more.
        """
        if self.api is None:
            raise CoreUnavailableError("the core has ended")
        try:
            limit = self._settings.core_call_timeout_seconds
            return len(await self.api.swap_inbound_users(tag, messages, limit, before))
        except SwapFailedError as error:
            if not error.restored and self.running is not None:
                # An inbound is gone for good: only a new core has all of them again, and it starts with all users.
                log.error("the core lost an inbound, ending it", inbound=tag, error=str(error))
                await self.running.terminate(STOP_SECONDS)
                raise CoreUnavailableError(f"the core lost inbound {tag!r}: {error}") from None
            log.warning("swap failed, altering instead", inbound=tag, error=str(error))
        except CoreApiError as error:
            log.warning("swap failed, altering instead", inbound=tag, error=str(error))
        return None

    async def compare(self, users: UserTable, inbounds: Mapping[str, InboundSpec]) -> set[str]:
        """Keys of the users whom the core has exactly as desired, in every inbound; whoever should not be there is removed.

        Raises CoreUnavailableError.
        """
        accounts = await self.accounts_of_all(users, inbounds)
        limit = self._settings.core_call_timeout_seconds
        fine = users.keys()
        for tag in inbounds:
            if self.api is None:
                raise CoreUnavailableError("the core has ended")
            try:
                there = await self.api.inbound_users(tag, limit)
            except CoreApiError as error:
                raise CoreUnavailableError(f"the users of inbound {tag!r} are not known: {error}") from None
            wanted = {email: (key, account) for key, (email, account) in accounts[tag].items()}
            times = Counter(user.email for user in there)
            found: set[str] = set()
            strangers: list[AlterOperation] = []
            for number, user in enumerate(there):
                entry = wanted.get(user.email)
                if entry is None:
                    strangers.append(AlterOperation(tag, user.email))
                elif times[user.email] == 1 and is_user(user, entry[1]):
                    found.add(entry[0])
                if number % SLICE == SLICE - 1:
                    await asyncio.sleep(0)
            fine -= accounts[tag].keys() - found
            for stranger, failure in zip(strangers, await self.api.alter_many(strangers, limit), strict=True):
                if failure is not None and failure.kind is not ErrorKind.NOT_FOUND:
                    fine.discard(email_key(stranger.email))
        return fine

    async def accounts_of_all(
        self, users: UserTable, inbounds: Mapping[str, InboundSpec]
    ) -> dict[str, dict[str, tuple[str, Account]]]:
        found: dict[str, dict[str, tuple[str, Account]]] = {tag: {} for tag in inbounds}
        keys = list(users.keys())
        for at in range(0, len(keys), SLICE):
            for tag, of_tag in users.accounts(keys[at : at + SLICE], inbounds).items():
                found[tag].update(of_tag)
            await asyncio.sleep(0)
        return found

    async def render(
        self,
        base: BaseConfig,
        users: UserTable,
        inbounds: Mapping[str, InboundSpec],
        clients: ClientJsonCache | None = None,
    ) -> str:
        """The config for a core with all desired users, as JSON; ``clients`` that were made on the way are used up."""
        known = ClientJsonCache(inbounds) if clients is None else clients
        for number, key in enumerate(known.missing(users.desired), 1):
            known.put(key, *users.decoded(key, inbounds))
            if number % SLICE == 0:
                await asyncio.sleep(0)
        return await asyncio.to_thread(lambda: render(base, known.hand_over(users.desired)))

    async def _write_copy(self, config_json: str) -> None:
        path = self._settings.generated_config_path
        if path is None:
            return
        target = path / "config.json" if path.is_dir() else path

        def write() -> None:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch(mode=0o600)
            target.write_text(config_json, encoding="utf-8")

        try:
            await asyncio.to_thread(write)
        except OSError as error:
            log.warning("GENERATED_CONFIG_PATH not written", path=str(target), error=error.strerror)
