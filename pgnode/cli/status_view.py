"""How a node is, on one screen. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from pgnode import __version__
from pgnode.cli.alone_text import KINDS, alone_text
from pgnode.cli.rows import Row, Tone
from pgnode.cli.seen import Facts
from pgnode.cli.texts import count, duration, open_connections, size
from pgnode.cli.verdict import CERTIFICATE_DAYS, DISK_BYTES, DISK_FILES, WELL, Verdict
from pgnode.supervisor.control.report import DrainReport, NodeReport

#: Warnings that are shown.
WARNINGS: Final = 3

_DAY = 86_400.0


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
        yield from [Row("open", open_connections(report.connections))] if report.connections else []
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
