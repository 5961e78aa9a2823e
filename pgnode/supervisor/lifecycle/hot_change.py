"""A hot change: entries of the running core's config are changed through its API, and everything else goes on.

Each inbound that is added has its users from the first moment. If anything fails, the core has neither the old config nor the
new one, and the caller starts a new core. Until the change is complete the core's record says so, for a supervisor that comes
after a crash (:mod:`pgnode.supervisor.lifecycle.interrupted_change`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pgnode.errors import CoreUnavailableError, InvalidRequestError, StartFailedError
from pgnode.os_support.fault_points import async_fault_point
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.users.core_users import SLICE, accounts_by_tag
from pgnode.supervisor.users.table import UserTable
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError, ErrorKind
from pgnode.xray.client.inbounds import with_users
from pgnode.xray.client.routing import RoutingApi
from pgnode.xray.client.users import AlterOperation
from pgnode.xray.config.accounts import Account, user_message
from pgnode.xray.config.diff import ConfigDiff, Decision
from pgnode.xray.process import run_folder
from pgnode.xray.process.base import Core
from pgnode.xray.process.scratch import Encoded, encode_parts
from pgnode.xray.proto import core_pb2, router_pb2
from pgnode.xray.rules.compile import compile_routing

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: What the record says while the core runs neither the old nor the new config: no config has this hash.
CHANGING = "changing"


@dataclass(frozen=True, slots=True)
class HotChangePlan:
    """All that is needed to change the running core. To make it touches nothing."""

    diff: ConfigDiff
    encoded: Encoded
    #: In place of all rules and balancers; None where they stay.
    rules: router_pb2.Config | None


#: Makes the plan of a hot change.
Prepare = Callable[["Settings", Core, RunSpec, Decision], Awaitable[HotChangePlan]]


async def prepare_hot_change(settings: Settings, core: Core, new: RunSpec, decision: Decision) -> HotChangePlan:
    """Ask a scratch core how it encodes the entries that differ.

    Args:
        settings: Sockets and time limits.
        core: The core that encodes them.
        new: What is asked for.
        decision: Which entries differ.

    Returns:
        The plan; nothing was touched.

    Raises:
        StartFailedError: The running core cannot be changed to this config.
    """
    rules = None
    if decision.diff.rules:
        try:
            rules = compile_routing(new.base.document["routing"])
        except InvalidRequestError as error:
            raise StartFailedError(f"only the core can compile these rules: {error}") from None
    limit = settings.core_start_timeout_seconds
    try:
        # A disk without room for a socket is no reason for a new core.
        with run_folder.place_for_socket(settings.core_scratch_socket) as path:
            encoded = await encode_parts(core, new.base, decision.diff, path, limit)
    except OSError as error:
        raise StartFailedError(f"no scratch core can be started: {error.strerror or error}") from None
    return HotChangePlan(decision.diff, encoded, rules)


class HotChange:
    """One change of the running core."""

    def __init__(self, control: CoreController, prepared: HotChangePlan, new: RunSpec, limit_seconds: float) -> None:
        if control.api is None or control.running is None:
            raise CoreUnavailableError("the core has ended")
        self._api: CoreApi = control.api
        self._running = control.running
        self._prepared = prepared
        self._new = new
        self._limit_seconds = limit_seconds
        #: Key -> the core's reason, for users whom it refused in an added inbound.
        self.refused: dict[str, str] = {}

    async def carry_out(self, users: UserTable) -> None:
        """Change the core; added inbounds have the desired ``users``. Raises CoreUnavailableError.

        The record names no config until :meth:`finished`.
        """
        diff = self._prepared.diff
        added = {tag: spec for tag, spec in self._new.inbounds.items() if tag in diff.add_inbounds}
        accounts = await accounts_by_tag(users, added)
        messages = {tag: await user_messages(of_tag) for tag, of_tag in accounts.items()}
        await self._running.set_config_hash(CHANGING)
        try:
            await self._outbounds()
            for tag in diff.remove_inbounds:
                await self._gone(self._api.inbounds.remove_inbound(tag, self._limit_seconds))
            await async_fault_point("hot_change.half_done")
            for tag in diff.add_inbounds:
                inbound = self._prepared.encoded.inbounds[tag]
                if tag in added:
                    self.refused |= await add_with_users(self._api, inbound, messages[tag], self._limit_seconds)
                else:
                    await self._api.inbounds.add_inbound(inbound, self._limit_seconds)
            self._come_back()
            await self._check()
        except CoreApiError as error:
            raise CoreUnavailableError(f"the core could not be changed: {error}") from None

    async def finished(self) -> None:
        """Note in the record that the core is what the new config says."""
        await self._running.set_config_hash(self._new.base.base_hash)

    async def _outbounds(self) -> None:
        diff, encoded = self._prepared.diff, self._prepared.encoded.outbounds
        for tag in diff.add_outbounds:
            if tag in diff.remove_outbounds:
                await self._gone(self._api.inbounds.remove_outbound(tag, self._limit_seconds))
            await self._api.inbounds.add_outbound(encoded[tag], self._limit_seconds)
        if self._prepared.rules is not None:
            await RoutingApi(self._api.channel, self._limit_seconds).add_rules(self._prepared.rules, append=False)
        # Only from here on no rule points to these.
        for tag in diff.remove_outbounds:
            if tag not in diff.add_outbounds:
                await self._gone(self._api.inbounds.remove_outbound(tag, self._limit_seconds))

    def _come_back(self) -> None:
        """Note that inbounds which were away are what the new config says: there, or gone for good."""
        diff, away = self._prepared.diff, self._api.inbounds.away
        for tag in (*diff.remove_inbounds, *diff.add_inbounds):
            away.pop(tag, None)

    async def _check(self) -> None:
        """Make sure that the core lists exactly the inbounds of the new config; those that are away are in no list."""
        there = await self._api.inbounds.inbound_tags(self._limit_seconds)
        wanted = {spec.tag for spec in self._new.base.inbounds if spec.tag}
        wanted -= self._api.inbounds.away.keys()
        if there != wanted:
            odd = sorted(there ^ wanted)[0]
            raise CoreApiError(f"inbound {odd!r} is {'still' if odd in there else 'not'} there", ErrorKind.REFUSED)

    @staticmethod
    async def _gone(removal: Awaitable[None]) -> None:
        """Wait for a removal; what is not there counts as removed."""
        try:
            await removal
        except CoreApiError as error:
            if error.kind is not ErrorKind.NO_HANDLER:
                raise


async def user_messages(accounts: Mapping[str, tuple[str, Account]]) -> dict[str, tuple[str, bytes]]:
    """Encode users: key -> (e-mail, message). The event loop gets its turns meanwhile."""
    items: Sequence[tuple[str, tuple[str, Account]]] = list(accounts.items())
    found: dict[str, tuple[str, bytes]] = {}
    for at in range(0, len(items), SLICE):
        found |= {key: (email, user_message(email, account)) for key, (email, account) in items[at : at + SLICE]}
        await asyncio.sleep(0)
    return found


async def add_with_users(
    api: CoreApi, inbound: core_pb2.InboundHandlerConfig, users: Mapping[str, tuple[str, bytes]], limit_seconds: float
) -> dict[str, str]:
    """Add an inbound that has its users from the first moment.

    Args:
        api: The core's API.
        inbound: As the core encodes it.
        users: Key -> (e-mail, message).
        limit_seconds: Seconds that each call may take.

    Returns:
        Key -> the core's reason, for users whom it refuses.

    Raises:
        CoreApiError: The inbound is not there, or not with all users.
    """
    refused: dict[str, str] = {}
    keys, entries = list(users), list(users.values())
    filled, rest = with_users(inbound, [message for _, message in entries])
    try:
        await api.inbounds.add_inbound(filled, limit_seconds)
        first = len(entries) - len(rest)
    except CoreApiError as error:
        if error.kind is not ErrorKind.REFUSED or not entries:
            raise
        # Perhaps because of one user: add them one by one, so that the user can be named.
        log.warning("inbound refused with its users, adding them one by one", inbound=inbound.tag, error=str(error))
        await api.inbounds.add_inbound(with_users(inbound, [])[0], limit_seconds)
        first = 0
    operations = [AlterOperation(inbound.tag, email, message) for email, message in entries[first:]]
    for at in range(0, len(operations), SLICE):
        results = await api.users.alter_many(operations[at : at + SLICE], limit_seconds)
        for number, failure in enumerate(results, start=first + at):
            if failure is None:
                continue
            if failure.kind is not ErrorKind.REFUSED:
                raise failure
            refused[keys[number]] = str(failure)
    return refused
