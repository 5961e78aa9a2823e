"""How a node is, in one word and on one screen. Pure."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from pgnode import __version__
from pgnode.bus.state import State
from pgnode.cli.alone_text import KINDS, alone_text
from pgnode.cli.seen import Facts
from pgnode.cli.texts import count, duration, open_connections, size
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

#: Warnings that are shown.
WARNINGS: Final = 3

_DAY = 86_400.0


class Tone(enum.Enum):
    """How something is to be shown."""

    PLAIN = enum.auto()
    GOOD = enum.auto()
    WARN = enum.auto()
    BAD = enum.auto()


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the screen; one without a label goes on with the one before."""

    label: str
    text: str
    tone: Tone = Tone.PLAIN


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
    yield from _surroundings(facts)


def _drain_trouble(drain: DrainReport) -> str:
    if drain.draining:
        return "not all inbounds are out of the core that a drain takes out; it is tried again"
    return f"inbounds are not back after a drain, and nobody new can connect there ({', '.join(drain.away)}); it is tried again"


def _surroundings(facts: Facts) -> Iterator[str]:
    if facts.certificate.error:
        yield f"{facts.certificate.path} cannot be used: {facts.certificate.error}"
    elif facts.certificate.until < facts.at:
        yield "the certificate has expired"
    if facts.disk is not None and facts.disk.free_bytes < DISK_BYTES:
        yield f"the disk of the state folder has {size(facts.disk.free_bytes)} left"
    if facts.disk is not None and facts.disk.free_files is not None and facts.disk.free_files < DISK_FILES:
        yield f"the disk of the state folder has room for {facts.disk.free_files:,} files"


# --- the screen -------------------------------------------------------------------------------------------------------


def rows(facts: Facts, judged: Verdict) -> Iterator[Row]:
    """Yield the screen without its head.

    Args:
        facts: What was found out.
        judged: What :func:`verdict` made of it.

    Yields:
        Lines.
    """
    if facts.why:
        yield Row("node", facts.why)
    for number, reason in enumerate(judged.because):
        yield Row("" if number else "because", reason, judged.tone)
    yield from _core_rows(facts)
    yield from _users_rows(facts)
    report = facts.report
    if report is not None:
        yield from _drain_rows(report.drain)
        yield _panel_row(report)
        yield from _api_rows(facts, report)
        yield _bus_row(report)
    yield _store_row(facts)
    yield from _disk_rows(facts)
    yield _certificate_row(facts)
    if report is not None:
        yield from _warning_rows(report)


def head(facts: Facts, judged: Verdict) -> tuple[str, str, str]:
    """Return what stands at the top: before the word, the word, and after it."""
    report = facts.report
    version = report.version if report is not None else __version__
    parts = []
    if facts.pid:
        parts.append(f"up {duration(report.up_seconds if report is not None else facts.up_seconds)}")
        if report is not None and report.restarts_in_place:
            parts.append(f"restarted in place {count(report.restarts_in_place, 'time')}")
        parts.append(f"pid {facts.pid}")
    parts.append(_short(facts.state_dir))
    return f"pgnode {version} · ", judged.word, "".join(f" · {part}" for part in parts)


def _short(path: str) -> str:
    home = str(Path.home()) if path.startswith("/") else ""
    return f"~{path[len(home) :]}" if home not in ("", "/") and path.startswith(f"{home}/") else path


def _core_rows(facts: Facts) -> Iterator[Row]:
    report, seen = facts.report, facts.core
    if report is None:
        if seen is not None:
            yield Row("core", f"Xray ({seen.kind}), pid {seen.pid}, up {duration(seen.up_seconds)}", Tone.WARN)
        else:
            yield Row("core", "none runs")
        return
    core = report.core
    name = f"Xray {core.version} {core.name.partition(' (')[0]}{core.purpose}" if core.version else core.name
    if core.pid:
        up = f", up {duration(core.up_seconds)}" if core.up_seconds is not None else ""
        yield Row("core", f"{name}, run {core.run}{up}, pid {core.pid}")
    else:
        yield Row("core", f"none runs ({name})")
    if core.deaths:
        hung = f", {core.hangs} of them since it hung" if core.hangs else ""
        yield Row("", f"ended by itself {count(core.deaths, 'time')}{hung}", Tone.WARN)
    if core.last_end:
        ago = f" ({duration(core.last_end_seconds_ago)} ago)" if core.last_end_seconds_ago is not None else ""
        yield Row("", f"the last time: {core.last_end}{ago}")
    if core.waiting:
        yield Row("waits", f"for the next start of the core: {core.waiting}", Tone.WARN)


def _users_rows(facts: Facts) -> Iterator[Row]:
    report, held = facts.report, facts.store.held
    if report is not None:
        users = report.users
        removed = [f"{users.to_remove:,} to be removed"] if users.to_remove else []
        parts = [f"{users.desired:,} desired", f"{users.applied:,} applied", *removed, f"{users.rejected:,} rejected"]
        more = " (pgnode users --failed)" if users.rejected else ""
        yield Row("users", ", ".join(parts) + more, Tone.WARN if users.rejected else Tone.PLAIN)
        yield from [Row("connections", open_connections(report.connections))] if report.connections else []
    elif held is not None:
        yield Row(
            "users", f"{held.users:,} desired, {held.rejected:,} rejected, as stored at {_time(facts.store.written_at)}"
        )


def _drain_rows(drain: DrainReport) -> Iterator[Row]:
    if not drain.draining:
        return
    since = f"since {_time(drain.since)} " if drain.since is not None else ""
    until = _time(drain.until) if drain.until is not None else "pgnode drain --cancel"
    start = ", also over a start by the panel" if drain.hold else " or a start by the panel"
    yield Row("drained", f"{since}until {until}{start}", Tone.WARN)
    if drain.away:
        yield Row("", f"no new connections on {', '.join(drain.away)}")
    for stays in drain.stays:
        yield Row("", stays)


def _panel_row(report: NodeReport) -> Row:
    panel = report.panel
    if panel.last_command_seconds_ago is None:
        text = "no command since the supervisor began"
    else:
        text = f"last command {duration(panel.last_command_seconds_ago)} ago"
    if panel.away:
        return Row(
            "panel", f"{text}; away: silent for more than its keep_alive of {panel.keep_alive_seconds} s", Tone.WARN
        )
    return Row("panel", text)


def _api_rows(facts: Facts, report: NodeReport) -> Iterator[Row]:
    rest, grpc = facts.pids_of("rest"), facts.pids_of("grpc")
    restarts = {process.name: process.restarts for process in report.processes}
    texts = []
    if "gunicorn" in restarts:
        texts.append(f"{count(len(rest), 'REST worker')}{_pids(rest)}")
    if any(name.startswith("gRPC") for name in restarts):
        texts.append(f"{count(len(grpc), 'gRPC worker')}{_pids(grpc)}")
    again = [f"{name} {count(times, 'time')}" for name, times in restarts.items() if times]
    texts += [alone_text(each, report.version) for each in report.alone]
    if not texts:
        texts.append("no worker: start some with `pgnode worker`")
    tail = f"; started again: {', '.join(again)}" if again else ""
    more = [f"{number:+d} {KINDS.get(kind, kind)}" for kind, number in report.added_workers.items() if number]
    if more:
        texts.append(f"{', '.join(more)} than the settings say, until the next restart or reload")
    apart = any(not each.agrees or each.version != report.version for each in report.alone)
    yield Row("API", ", ".join(texts) + tail, Tone.WARN if again or apart else Tone.PLAIN)
    if facts.api:
        yield Row("", ", ".join(facts.api))


def _pids(pids: list[int], shown: int = 4) -> str:
    if not pids:
        return ""
    more = " …" if len(pids) > shown else ""
    return f" (pid {', '.join(map(str, pids[:shown]))}{more})"


def _bus_row(report: NodeReport) -> Row:
    bus = report.bus
    name = "embedded Valkey" if bus.address == "embedded" else bus.address
    if bus.error:
        return Row("bus", f"{name}: {bus.error}", Tone.BAD)
    return Row("bus", f"{name}, answers in {bus.answer_ms:g} ms" if bus.answer_ms is not None else name)


def _store_row(facts: Facts) -> Row:
    store = facts.store
    if store.error:
        return Row("store", store.error, Tone.BAD)
    if not store.written_at:
        return Row("store", f"none yet: no node has run with this folder ({Path(store.path).name})")
    text = f"{Path(store.path).name}, {size(store.size_bytes)}, written {duration(max(0.0, facts.at - store.written_at))} ago"
    if facts.report is not None and facts.report.store_error:
        return Row("store", f"{text}; does not take changes", Tone.BAD)
    return Row("store", text)


def _disk_rows(facts: Facts) -> Iterator[Row]:
    disk = facts.disk
    if disk is None:
        return
    few = disk.free_files is not None and disk.free_files < DISK_FILES
    bad = disk.free_bytes < DISK_BYTES or few
    files = f", room for {disk.free_files:,} files" if few else ""
    text = f"{size(disk.free_bytes)} of {size(disk.total_bytes)} free{files}"
    yield Row("disk", text, Tone.BAD if bad else Tone.PLAIN)


def _certificate_row(facts: Facts) -> Row:
    found = facts.certificate
    if found.error:
        return Row("cert", f"{found.path}: {found.error}", Tone.WARN if not facts.pid else Tone.BAD)
    until = datetime.datetime.fromtimestamp(found.until, datetime.UTC)
    kind = "self-signed, " if found.self_signed else ""
    names = f"; names: {', '.join(found.names)}" if found.names else "; no names"
    left = found.until - facts.at
    tone = Tone.BAD if left < 0 else Tone.WARN if left < CERTIFICATE_DAYS * _DAY else Tone.PLAIN
    said = "expired" if left < 0 else "until"
    return Row("cert", f"{kind}{said} {until:%Y-%m-%d}{names}", tone)


def _warning_rows(report: NodeReport) -> Iterator[Row]:
    if report.log_level != report.usual_log_level:
        yield Row("log", f"level {report.log_level}, usually {report.usual_log_level}")
    for name, times in report.task_failures.items():
        yield Row("task", f"{name} failed {count(times, 'time')} and was begun again: see the log", Tone.WARN)
    for number, found in enumerate(reversed(report.warnings[-WARNINGS:])):
        again = f" ({found.times} times)" if found.times > 1 else ""
        tone = Tone.WARN if found.level == "warning" else Tone.BAD
        yield Row("" if number else "warnings", f"{_time(found.at)} {found.text}{again}", tone)


def _time(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def as_json(facts: Facts, judged: Verdict) -> dict[str, Any]:
    """Return all of it for programs; times in Unix seconds, sizes in bytes.

    Args:
        facts: What was found out.
        judged: What :func:`verdict` made of it.

    Returns:
        One object.
    """
    said = asdict(facts)
    return {"status": judged.word, "well": judged.exit_code == WELL, "because": list(judged.because), **said}
