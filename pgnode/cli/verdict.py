"""How a node is, in one word and an exit code, and what is not well. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from pgnode.bus.state import State
from pgnode.cli.rows import Tone
from pgnode.cli.seen import Facts
from pgnode.cli.texts import duration, size
from pgnode.supervisor.control.progress import Phase
from pgnode.supervisor.control.report import DrainReport, NodeReport

#: Exit codes: well, not running, running and not well.
WELL, NOT_RUNNING, NOT_WELL = 0, 3, 4

#: Attempts to restore a config after which it is set aside.
_SET_ASIDE = 2

#: Days before the end of a certificate from which on it is said.
CERTIFICATE_DAYS: Final = 14

#: Free bytes and files of the disk below which it is said.
DISK_BYTES: Final = 256 * 1024 * 1024
DISK_FILES: Final = 1000


@dataclass(frozen=True, slots=True)
class Verdict:
    """How the node is."""

    word: str
    exit_code: int
    #: What is not well.
    because: tuple[str, ...] = ()

    @property
    def tone(self) -> Tone:
        """How it is to be shown."""
        if self.exit_code == WELL:
            return Tone.GOOD
        return Tone.BAD if self.word in _BAD else Tone.WARN


_BAD = frozenset({"down", "hung", "failed"})

#: The states of a node as operators know them.
_WORDS: Final = {
    State.RESTORING: "starting",
    State.IDLE: "waiting",
    State.STARTING: "starting",
    State.RUNNING: "running",
    State.RECOVERING: "recovering",
    State.FAILED: "failed",
    State.LINGERING: "stopped",
    State.STOPPING: "stopping",
}


def verdict(facts: Facts) -> Verdict:
    """Judge.

    Args:
        facts: What was found out.

    Returns:
        How the node is.
    """
    if not facts.pid:
        return Verdict("down", NOT_RUNNING, tuple(_of_a_node_that_is_down(facts)))
    if facts.report is None:
        if facts.hangs:
            return Verdict("hung", NOT_WELL, (f"the supervisor (pid {facts.pid}) hangs: {facts.silence}",))
        return Verdict(
            "not answering", NOT_WELL, (f"the supervisor (pid {facts.pid}) does not answer: {facts.silence}",)
        )
    report = facts.report
    if report.phase != Phase.READY:
        step = f", waiting for {report.step}" if report.step else ""
        return Verdict(report.phase, NOT_WELL, (f"the supervisor is {report.phase}{step}",))
    state = _state(report)
    word = _WORDS[state] if state is not None else report.state
    because = tuple(_not_well(facts, report))
    return Verdict(word, NOT_WELL if because else WELL, because)


def exit_code_of(state: object, pid: int | None) -> int:
    """Return how a command ends that shows what is stored, too.

    Args:
        state: What the supervisor says of the node; None where it says nothing.
        pid: The supervisor; None where none runs.

    Returns:
        The exit code.
    """
    if state is not None:
        return WELL
    return NOT_RUNNING if pid is None else NOT_WELL


def word_of(state: str) -> str:
    """Return the word for a state as operators know it: that of ``pgnode status``."""
    try:
        return _WORDS[State(state)]
    except ValueError:
        return state


def _state(report: NodeReport) -> State | None:
    try:
        return State(report.state)
    except ValueError:
        return None


def _of_a_node_that_is_down(facts: Facts) -> Iterator[str]:
    if facts.core is not None:
        yield (
            f"the core (pid {facts.core.pid}) goes on and serves users; the next start of the node takes it over, "
            "nobody counts or changes users meanwhile"
        )
    held = facts.store.held
    if held is not None and held.active and held.restoring >= _SET_ASIDE:
        yield "the stored config ended the node twice: the next start of the node sets it aside and waits for the panel"
    if facts.store.error:
        yield facts.store.error


def _not_well(facts: Facts, report: NodeReport) -> Iterator[str]:
    match _state(report):
        case State.RECOVERING:
            yield f"the core is being brought back: {report.core.last_end or 'it has ended'}"
        case State.FAILED:
            soon = report.core.next_try_seconds
            when = f" in {duration(soon)}" if soon is not None else ""
            yield f"the core does not stay up and is tried again{when}: {report.core.last_end or 'see the log'}"
        case State.RESTORING | State.STARTING:
            yield "the core is being started"
    if report.drain.error:
        yield f"{_drain_trouble(report.drain)}: {report.drain.error}"
    if report.unknown:
        yield f"it is not known what has to run, a start by the panel is needed: {report.unknown}"
    if report.core.api_error:
        yield f"the core's API does not answer: {report.core.api_error}"
    if report.store_error:
        yield f"the store does not take changes: {report.store_error}"
    if report.bus.error:
        yield f"the bus does not answer, so the API does not: {report.bus.error}"
    for process in report.processes:
        if not process.pid:
            yield f"{process.name} does not run, and is tried again and again: see the log"
    if report.certificate_error:
        yield f"the certificate files are not taken: {report.certificate_error}"
    yield from not_well_around(facts)


def _drain_trouble(drain: DrainReport) -> str:
    if drain.draining:
        return "not all inbounds are out of the core that a drain takes out; it is tried again"
    return f"inbounds are not back after a drain, and nobody new can connect there ({', '.join(drain.away)}); it is tried again"


def not_well_around(facts: Facts) -> Iterator[str]:
    """Say what is not well with the files and the disk of a node, running or not.

    Args:
        facts: What was found out.

    Yields:
        Sentences; those of a node that runs are part of :attr:`Verdict.because`.
    """
    if facts.certificate.error:
        yield f"{facts.certificate.path} cannot be used: {facts.certificate.error}"
    elif facts.certificate.until < facts.at:
        yield "the certificate has expired"
    if facts.disk is not None and facts.disk.free_bytes < DISK_BYTES:
        yield f"the disk of the state folder has {size(facts.disk.free_bytes)} left"
    if facts.disk is not None and facts.disk.free_files is not None and facts.disk.free_files < DISK_FILES:
        yield f"the disk of the state folder has room for {facts.disk.free_files:,} files"
