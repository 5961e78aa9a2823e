"""Looks at a node again and again, for ``pgnode top``: what its supervisor says, and what the system says of its core."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psutil

from pgnode.cli.facts import find_facts
from pgnode.cli.seen import Facts
from pgnode.cli.target import Target
from pgnode.cli.top_model import Sample, SeenProcess
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.supervisor.control.live_report import LiveReport
from pgnode.supervisor.control.report import NodeReport
from pgnode.supervisor.host.node_lock import running_pid

#: Seconds between two looks at what changes rarely: store, disk, certificate.
FACTS_SECONDS = 30.0


class Looker:
    """Belongs to one thread.

    Args:
        target: The node.
        ask_seconds: Seconds that its supervisor has to answer.
        facts_seconds: Seconds between two looks at what changes rarely.
        monotonic: Seconds on a clock that nobody sets.
        find: Finds out all there is of a node.
    """

    def __init__(
        self,
        target: Target,
        *,
        ask_seconds: float = ASK_SECONDS,
        facts_seconds: float = FACTS_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        find: Callable[[Target], Facts] | None = None,
    ) -> None:
        self._target = target
        self._ask_seconds = ask_seconds
        self._facts_seconds = facts_seconds
        self._monotonic = monotonic
        self._find = find if find is not None else (lambda target: find_facts(target, ask_seconds=ask_seconds))
        self._facts: Facts | None = None
        self._found_at = 0.0

    def __repr__(self) -> str:
        return f"Looker({self._target.settings.state_dir})"

    def look(self) -> Sample:
        """Look once; takes as long as the supervisor has to answer, and somewhat more.

        Returns:
            What was seen; also of a node that is down, or hangs.
        """
        pid = running_pid(self._target.settings)
        live, report = self._ask() if pid is not None else (None, None)
        at = self._monotonic()
        known = self._facts
        if known is None or report is None or at - self._found_at >= self._facts_seconds:
            # Of one that does not answer only this tells why.
            known = self._facts = self._find(replace(self._target, pid=pid))
            self._found_at = at
            report = report if report is not None else known.report
        facts = replace(known, at=time.time(), pid=pid or 0, report=report)
        core = facts.core.pid if facts.core is not None else 0
        if report is not None:
            core = report.core.pid
        return Sample(self._monotonic(), facts, live, look_at(core) if core else None)

    def _ask(self) -> tuple[LiveReport | None, NodeReport | None]:
        try:
            said = ask(self._target.settings.run_dir, messages.LIVE, seconds=self._ask_seconds)
            return LiveReport.decode(said.get("live")), NodeReport.decode(said.get("status") or {})
        except NotAnsweredError:
            return None, None


def look_at(pid: int) -> SeenProcess | None:
    """Look at a process.

    Args:
        pid: Its pid.

    Returns:
        What it takes; None where it has ended.
    """
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return SeenProcess(process.memory_info().rss, times.user + times.system, _open_files(pid))
    except psutil.Error:
        return None


def _open_files(pid: int) -> int | None:
    folder = Path(f"/proc/{pid}/fd")
    with contextlib.suppress(OSError):
        # Since Linux 6.2 this is their number, without a look at each.
        return folder.stat().st_size or len(os.listdir(folder))
    return None
