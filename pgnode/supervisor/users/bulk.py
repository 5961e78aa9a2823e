"""A change of many users: read, made desired, applied; a little at a time, so that single changes come in between."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.errors import InternalError, NodeError
from pgnode.supervisor.commands.dispatcher import INTERNAL_TEXT
from pgnode.supervisor.users.answers import Applied, UserChange, answer_to
from pgnode.supervisor.users.applying import UserApplier
from pgnode.supervisor.users.decoding import Inbounds, Refusal
from pgnode.supervisor.users.intake import UserIntake
from pgnode.supervisor.users.learning import learn_credentials
from pgnode.supervisor.users.rejected import RejectedUsers
from pgnode.supervisor.users.rollout import Rollout, StepLimits
from pgnode.supervisor.users.settling import settle_credentials
from pgnode.supervisor.users.superseded import Superseded
from pgnode.supervisor.users.table import UserTable

log = structlog.get_logger(__name__)


class TakenBulk(Protocol):
    """Which bulk change became the desired state last; kept in the store."""

    def is_taken(self, command: str) -> bool:
        """Return whether this command was the last one."""

    def note_taken(self, command: str) -> None:
        """Note that the users of this command are the desired ones."""


class BulkChange:
    """One bulk change, from its command to its answer: call :meth:`step` until it returns the answer.

    It is first read (:class:`UserIntake`), then its users become the desired ones, in one go, then they are applied
    (:class:`Rollout`). Each step takes some 50 ms, with the core's lock held. What changed is stored between two steps.

    Args:
        command: A full set, or a long delta. Its body is let go as soon as it is read.
        table: All users.
        rejected: Those who cannot be had.
        superseded: Those who are changed by others while it is read.
        applier: Applies it.
        taken: Knows whether the command was taken in before.
        inbounds: Says which inbounds run, by tag; raises NodeError where none does.
        limits: How much is done at a time.
        ended: Called when it came to its end.
    """

    def __init__(
        self,
        command: Command,
        *,
        table: UserTable,
        rejected: RejectedUsers,
        superseded: Superseded,
        applier: UserApplier,
        taken: TakenBulk,
        inbounds: Callable[[], Inbounds],
        limits: StepLimits,
        ended: Callable[[], None] = lambda: None,
    ) -> None:
        self._table = table
        self._rejected = rejected
        self._superseded = superseded
        self._applier = applier
        self._taken = taken
        self._inbounds = inbounds
        self._limits = limits
        self._ended = ended
        self._change = UserChange(command)
        #: Whether it says something of all users.
        self._whole = command.kind is Kind.SYNC_USERS or taken.is_taken(command.id)
        self._begun = False
        self._intake: UserIntake | None = None
        self._rollout: Rollout | None = None
        self._applied = Applied()
        #: Who is to be applied for what was found out before it was read.
        self._learned: set[str] = set()

    def __repr__(self) -> str:
        """Say how far it is."""
        return f"BulkChange({self._change.command!r}, {self._rollout or self._intake or 'not begun'})"

    async def step(self) -> Reply | None:
        """Do the next part; a small change is done at once.

        Returns:
            The answer, when it came to its end.
        """
        try:
            reply = await self._step(self._inbounds())
        except NodeError as error:
            reply = Reply(error=error)
        except Exception:
            log.exception("bulk change failed", command=repr(self._change.command))
            self._table.core_uncertain(self._table.differing_all())
            reply = Reply(error=InternalError(INTERNAL_TEXT))
        if reply is not None:
            self._end()
        return reply

    async def _step(self, inbounds: Inbounds) -> Reply | None:
        loop = asyncio.get_running_loop()
        until = loop.time() + self._limits.step_seconds
        if not self._begun:
            self._learned = (
                await learn_credentials(self._table, self._rejected, inbounds, self._limits.slice_users)
            ).keys
            self._begin(inbounds)
        while True:
            if self._intake is not None and not self._intake.read(self._limits.slice_users):
                pass
            elif self._rollout is None:
                # In one go: once its users are the desired ones, it must not be taken in again over what others change.
                self._make_desired()
                differing = (
                    self._table.differing_all()
                    if self._whole
                    else self._table.differing(self._change.keys | self._learned)
                )
                if not differing:
                    return answer_to(self._change, self._applied)
                self._taken.note_taken(self._change.command.id)
                self._rollout = await self._applier.begin_rollout(differing, inbounds)
            else:
                applied = self._applied
                await self._applier.step_rollout(self._rollout, applied, inbounds, until)
                if self._rollout.done:
                    while self._table.credentials.freed and applied.error is None:
                        # Somebody was refused by the core who had taken it from others.
                        settled = settle_credentials(self._table, self._rejected, inbounds)
                        applied.join(await self._applier.apply(settled.keys, inbounds))
                    self._change.keys = self._change.keys | applied.refused.keys() | applied.unanswered
                    return answer_to(self._change, applied)
            await asyncio.sleep(0)
            if loop.time() >= until:
                return None

    def _begin(self, inbounds: Inbounds) -> None:
        self._begun = True
        command = self._change.command
        if self._taken.is_taken(command.id):
            # Delivered again: who was left out is on the list, everybody else is desired, or was changed since.
            self._change.refusals = [Refusal(user.email, user.cause) for user in self._rejected.all()]
            return
        body, command.body = command.body, b""
        self._superseded.begin(command.id)
        self._intake = UserIntake(
            body,
            self._table,
            self._rejected,
            inbounds,
            replace=command.kind is Kind.SYNC_USERS,
            superseded=self._superseded.keys,
        )

    def _make_desired(self) -> None:
        if self._intake is not None:
            self._change.keys, self._change.refusals = self._intake.commit()
            self._intake = None
            self._superseded.end()

    def give_up(self) -> None:
        """Let go what it holds; nobody does a further step. Who was changed since stays known, for its command may come again."""
        if self._intake is not None:
            self._intake.drop()
        if self._rollout is not None:
            self._rollout.abandon()

    def _end(self) -> None:
        """Let go what it holds; it was answered, perhaps before it came to its end."""
        if self._intake is not None:
            self._superseded.end()
        self.give_up()
        self._ended()
