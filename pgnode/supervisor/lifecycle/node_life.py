"""The machine with what it knows now: the one place where the state of the node is kept, and asked for.

Only the shell (:mod:`pgnode.supervisor.lifecycle.core_lifecycle`) applies events; everybody else reads.
"""

from __future__ import annotations

import asyncio
import contextlib
import re

import structlog

from pgnode.bus.snapshots import XRAY
from pgnode.bus.state import KNOWN_SECONDS, NOT_KNOWN_YET
from pgnode.errors import CoreNotStartedError, CoreUnavailableError, NotInitializedError, UnsupportedError
from pgnode.supervisor.lifecycle.actions import Action
from pgnode.supervisor.lifecycle.events import Event, Outcome
from pgnode.supervisor.lifecycle.life import Life
from pgnode.supervisor.lifecycle.machine import transition
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.lifecycle.states import State

log = structlog.get_logger(__name__)


class NodeLife:
    """Belongs to the supervisor's loop.

    Args:
        life: What is known to begin with; None: nothing is, as in a new supervisor.
        known_seconds: Seconds that whoever asks waits for that, at most.
    """

    def __init__(self, life: Life | None = None, *, known_seconds: float = KNOWN_SECONDS) -> None:
        self._now = life if life is not None else Life()
        self._known_seconds = known_seconds
        #: Set once it is known whether a core runs.
        self._known = asyncio.Event()

    def __repr__(self) -> str:
        return f"NodeLife({self.state}, core run {self._now.core_run})"

    @property
    def now(self) -> Life:
        """What is known now. The object never changes: ask again after something happened."""
        return self._now

    @property
    def state(self) -> State:
        """The state of the node."""
        return self._now.state

    @property
    def keep_alive_seconds(self) -> int:
        """How long the panel may be silent before that is noticed; 0 = for ever."""
        return self._now.desired.keep_alive_seconds if self._now.desired is not None else 0

    @property
    def core_type(self) -> str:
        """What has to run, or runs: "xray" or "wireguard"; the former where nothing does."""
        spec = self._now.desired or self._now.core
        return spec.core_type if spec is not None else XRAY

    def apply(self, event: Event) -> tuple[Action, ...]:
        """Let something happen.

        Args:
            event: What happens.

        Returns:
            What is to be done, in order.

        Raises:
            TransitionError: The event has no meaning now; nothing changed.
        """
        before = self._now.state
        self._now, actions = transition(self._now, event)
        if before is not self._now.state:
            log.info("node state", before=str(before), because=_name(event), state=str(self._now.state))
        if self._now.is_known:
            self._known.set()
        return actions

    async def known(self) -> None:
        """Wait until it is known whether a core runs; a supervisor that has just begun finds that out. Up to a limit."""
        if not self._now.is_known:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._known_seconds):
                    await self._known.wait()

    def require_running(self) -> RunSpec:
        """Make sure that a start was made and its core runs.

        Returns:
            What runs.

        Raises:
            UnavailableError: Nothing does; the error is the one that callers know for the state of the node.
        """
        if not self._now.is_known:
            raise CoreUnavailableError(NOT_KNOWN_YET)
        desired = self._now.desired
        if desired is None or self.state in (State.IDLE, State.FAILED):  # also while a core lingers
            raise NotInitializedError
        if self.state is not State.RUNNING:
            raise CoreNotStartedError
        return desired

    def require_routing(self) -> RunSpec:
        """Do the same for a core whose routing callers may see and change.

        Returns:
            What runs.

        Raises:
            UnavailableError: As :meth:`require_running`.
            UnsupportedError: It runs for a WireGuard backend.
        """
        spec = self.require_running()
        if spec.core_type != XRAY:
            raise UnsupportedError(
                f"a {spec.core_type.upper()} backend has no routing rules and no balancers: start the node with XRAY for these"
            )
        return spec

    def counted_tags(self) -> list[tuple[str, str]]:
        """Return (kind, tag) of every inbound and outbound of the core; one without a tag ("") is not counted."""
        spec = self._now.core or self._now.desired
        if spec is None:
            return []
        return [
            (kind, str(part.get("tag") or ""))
            for kind, key in (("inbound", "inbounds"), ("outbound", "outbounds"))
            for part in spec.base.document.get(key) or ()
        ]


def _name(event: Event) -> str:
    """Say in words what happened: "stop requested", "start core: done"."""
    what = _words(type(event))
    return f"{_words(type(event.action))}: {what}" if isinstance(event, Outcome) else what


def _words(of: type) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", " ", of.__name__).lower()
