"""Maintenance jobs: one at a time, beside everything else. Their callers may be gone when a job ends.

A job is a command that stays in the stream until it is answered. If the supervisor ends before that, the next one gets the
command again. A note in the run folder says that the job was begun: it is answered, and not run a second time.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from pgnode.bus.commands import Command, Kind, Reply
from pgnode.bus.server import CommandServer
from pgnode.errors import (
    ConflictError,
    DeadlineExceededError,
    InternalError,
    NodeError,
    UnavailableError,
    UpdateFailedError,
)
from pgnode.os_support.aio import end_tasks
from pgnode.os_support.files import read_json, write_atomically
from pgnode.supervisor.commands.dispatcher import INTERNAL_TEXT, NOT_BEGUN
from pgnode.supervisor.persistence.committer import StateCommitter

log = structlog.get_logger(__name__)

#: Answers kept for commands that are delivered again because the bus was away when their job ended.
ANSWERS_KEPT = 16

#: Seconds after which a note is out of date: its command will not be delivered again.
NOTE_SECONDS = 3600.0

#: Bytes of the largest note that is read.
NOTE_BYTES = 64 * 1024

#: Does the job that a command's body (JSON) asks for, and returns the sentence for ``detail``. Raises NodeErrors.
Job = Callable[[dict[str, str]], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class _Running:
    name: str
    since: str
    task: asyncio.Task[None]


class Maintenance:
    """Runs jobs. Belongs to the supervisor's loop.

    Args:
        run_dir: The folder for the note about the job that was begun.
        server: Knows which commands are too old to be begun.
        committer: Answers.
        jobs: Who does which kind.
    """

    def __init__(
        self, run_dir: Path, server: CommandServer, committer: StateCommitter, jobs: Mapping[Kind, Job]
    ) -> None:
        self._note = run_dir / "maintenance.json"
        self._server = server
        self._committer = committer
        self._jobs = jobs
        self._running: _Running | None = None
        #: Jobs that ended, by kind and result.
        self.ended: Counter[tuple[str, str]] = Counter()
        self._answers: OrderedDict[str, Reply] = OrderedDict()
        self._answering: set[asyncio.Task[None]] = set()

    def __repr__(self) -> str:
        return f"Maintenance({self._running.name if self._running is not None else 'idle'})"

    def restore(self, became: str = "", *, bus_is_new: bool = False) -> None:
        """Read which job an earlier supervisor did not finish. File I/O, once and small.

        Args:
            became: The version that this process became by a restart in place; "" where it was started by itself.
            bus_is_new: Whether the command ended with the bus that it was in, so that it does not come again.
        """
        try:
            note = read_json(self._note, NOTE_BYTES)
            command_id, name = str(note["id"]), str(note["job"])
            age_seconds = time.time() - self._note.stat().st_mtime
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("maintenance note not readable", error=str(error))
            return
        if age_seconds > NOTE_SECONDS or bus_is_new:
            if bus_is_new:
                log.warning("maintenance job interrupted", job=name)
            self._forget_note()
            return
        if became and name == Kind.UPDATE:
            # What such a command is for; it goes on by itself, to its end.
            log.info("the node was restarted in place during an update", version=became)
            detail = f"the node was restarted in place, pgnode {became} runs now; an UPDATE_COMMAND goes on to its end"
            self._remember(command_id, Reply(body=json.dumps({"detail": detail}).encode()))
            return
        log.warning("maintenance job interrupted", job=name)
        self._remember(
            command_id,
            Reply(
                error=UnavailableError(
                    f"{name} was interrupted when the node ended and is not repeated by itself: check the core's version, "
                    "then ask again"
                )
            ),
        )

    def take(self, command: Command) -> None:
        """Begin the job, or answer why not; returns at once."""
        known = self._answers.get(command.id)
        if known is not None:
            self._answer(command, known, done=True)
        elif self._server.expired(command):
            self._answer(command, Reply(error=DeadlineExceededError(NOT_BEGUN)))
        elif self._running is not None:
            now = self._running
            self._answer(
                command,
                Reply(
                    error=ConflictError(
                        f"{now.name} is under way since {now.since}: one maintenance job at a time, ask again later"
                    )
                ),
            )
        else:
            try:
                request = {name: str(value) for name, value in json.loads(command.body or b"{}").items()}
            except (ValueError, AttributeError):
                self._answer(command, Reply(error=InternalError("malformed command: its body is no JSON object")))
                return
            name = " ".join([command.kind.value, *request.values()])
            task = asyncio.create_task(self._run(command, name, request))
            self._running = _Running(name, f"{datetime.now().astimezone():%H:%M:%S}", task)

    async def close(self) -> None:
        """Cancel what runs; its caller will be told by the next supervisor."""
        running = [self._running.task] if self._running is not None else []
        await end_tasks([*running, *self._answering])

    async def _run(self, command: Command, name: str, request: dict[str, str]) -> None:
        try:
            reply = await self._do(command, name, request)
            self.ended[command.kind.value, "ok" if reply.error is None else "failed"] += 1
            self._remember(command.id, reply)
        finally:
            self._running = None
        # From here on another job may begin, whether or not the answer gets through.
        await self._committer.answer([(command, reply)])
        await asyncio.to_thread(self._forget_note)

    async def _do(self, command: Command, name: str, request: dict[str, str]) -> Reply:
        log.info("maintenance job begins", audit="maintenance", job=name)
        try:
            await asyncio.to_thread(write_atomically, self._note, json.dumps({"id": command.id, "job": name}) + "\n")
            detail = await self._jobs[command.kind](request)
        except NodeError as error:
            log.warning("maintenance job failed", audit="maintenance", job=name, error=error.text)
            return Reply(error=error)
        except OSError as error:
            log.warning("maintenance job failed", audit="maintenance", job=name, error=str(error))
            return Reply(
                error=UpdateFailedError(f"{error.strerror or error}: {error.filename or 'while doing ' + name}")
            )
        except Exception:
            log.exception("maintenance job failed", job=name)
            return Reply(error=InternalError(INTERNAL_TEXT))
        log.info("maintenance job done", audit="maintenance", job=name, detail=detail[:500])
        return Reply(body=json.dumps({"detail": detail}).encode())

    def _remember(self, command_id: str, reply: Reply) -> None:
        self._answers[command_id] = reply
        while len(self._answers) > ANSWERS_KEPT:
            self._answers.popitem(last=False)

    def _forget_note(self) -> None:
        with contextlib.suppress(OSError):
            self._note.unlink(missing_ok=True)

    def _answer(self, command: Command, reply: Reply, *, done: bool = False) -> None:
        async def answer() -> None:
            sent = await self._committer.answer([(command, reply)])
            if done and sent and self._running is None:
                # It does not come again.
                self._forget_note()

        task = asyncio.create_task(answer())
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)
