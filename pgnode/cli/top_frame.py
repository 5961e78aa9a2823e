"""Draws what :mod:`pgnode.cli.top_model` knows, line by line, for a screen of any size. Pure."""

from __future__ import annotations

import datetime
import textwrap
from collections.abc import Iterator, Sequence
from typing import Final

from rich.text import Text

from pgnode.cli.rows import Tone
from pgnode.cli.sparkline import sparkline
from pgnode.cli.status_view import head
from pgnode.cli.texts import NOT_COUNTED, duration, size
from pgnode.cli.top_model import TopModel
from pgnode.cli.verdict import verdict
from pgnode.os_support.log_text import printable
from pgnode.supervisor.control.live_report import LiveReport
from pgnode.supervisor.control.report import NodeReport

#: Columns for the labels, and for the text behind a row of bars.
LABEL_WIDTH: Final = 10
VALUE_WIDTH: Final = 32

#: Workers, lines of reasons, and warnings that are shown at most.
WORKERS: Final = 4
REASONS: Final = 3
WARNINGS: Final = 3

#: Columns of figures in the list.
FIGURE_WIDTH: Final = 12

#: Columns of a screen on which a list has one column less.
NARROW: Final = 70

#: Lines of a list that are kept for it before warnings are shown.
LIST_MIN: Final = 4

_STYLES = {Tone.PLAIN: "", Tone.GOOD: "green", Tone.WARN: "yellow", Tone.BAD: "red"}
_HELP = "q quit · sort: d down, u up, t total, n name · Tab another list · p pause"
_PLAIN = str.maketrans({"·": "-", "…": "~", "▼": "*"})


def frame(model: TopModel, width: int, height: int, *, plain: bool = False) -> list[Text]:
    """Draw.

    Args:
        model: What is known.
        width: Columns of the screen.
        height: Lines of it.
        plain: Of ASCII alone, for terminals that show nothing else.

    Returns:
        At most ``height`` lines, none wider than ``width``; the last of a whole screen says what keys do.
    """
    if model.sample is None:
        return [_line("pgnode top: waiting for the node", width, plain=plain)][:height]
    upper = list(_upper(model, width, plain=plain))
    warnings = list(_warnings(model))
    room = height - len(upper) - 1
    shown = max(0, min(len(warnings), room - LIST_MIN))
    rows = list(_list(model, width, room - shown))
    blank = [Text("")] * max(0, room - shown - len(rows))
    lines = [*upper, *rows, *blank, *warnings[len(warnings) - shown :]][: max(0, height - 1)]
    paused = Text("paused · ", style="bold") if model.paused else Text("")
    lines.append(paused.append(_HELP, style="dim"))
    return [_fit(line, width, plain=plain) for line in lines][:height]


def _line(text: str, width: int, *, plain: bool) -> Text:
    return _fit(Text(text), width, plain=plain)


def _fit(line: Text, width: int, *, plain: bool) -> Text:
    fitted = line.copy()
    if plain:
        styled = Text(line.plain.translate(_PLAIN).encode("ascii", "replace").decode(), style=line.style)
        styled.spans = list(line.spans)
        fitted = styled
    fitted.truncate(width, overflow="crop" if plain else "ellipsis")
    return fitted


def _labelled(label: str, text: str, tone: Tone = Tone.PLAIN) -> Text:
    return Text(f"{label:<{LABEL_WIDTH}}", style="bold").append(printable(text), style=_STYLES[tone] or "not bold")


def _upper(model: TopModel, width: int, *, plain: bool) -> Iterator[Text]:
    """Draw what stands above the list."""
    sample = model.sample
    assert sample is not None
    judged = verdict(sample.facts)
    before, word, after = head(sample.facts, judged)
    first = Text(before, style="bold").append(word, style=f"bold {_STYLES[judged.tone]}")
    yield first.append(printable(after), style="not bold")
    reasons = [line for reason in judged.because for line in textwrap.wrap(reason, max(20, width - LABEL_WIDTH))]
    for number, reason in enumerate(reasons[:REASONS]):
        yield _labelled("" if number else "because", reason, judged.tone)
    live, report = sample.live, sample.facts.report
    bars = max(0, width - LABEL_WIDTH - VALUE_WIDTH - 2)
    yield _chart("traffic", _added(model.up, model.down), _traffic(live), bars, plain=plain)
    yield _chart("sockets", list(model.sockets), _sockets(model), bars, plain=plain)
    yield _chart("calls", list(model.calls), _calls(model), bars, plain=plain)
    yield _labelled("core", _core(model, report), Tone.PLAIN if _core_runs(model) else Tone.WARN)
    if report is not None:
        if report.drain.draining:
            away = ", ".join(report.drain.away) or "no inbound"
            yield _labelled("drained", f"no new connections on {away}", Tone.WARN)
        yield _labelled("users", _users(report, live))
    yield from _workers(model)


def _added(*series: Sequence[float]) -> list[float]:
    return [sum(values) for values in zip(*series, strict=True)]


def _chart(label: str, values: list[float], text: str, width: int, *, plain: bool) -> Text:
    line = Text(f"{label:<{LABEL_WIDTH}}", style="bold")
    line.append(sparkline(values, width, plain=plain), style="cyan not bold")
    return line.append(f"  {text}", style="not bold")


def _rate(bytes_a_second: float) -> str:
    return f"{size(round(bytes_a_second))}/s"


def _traffic(live: LiveReport | None) -> str:
    if live is None:
        return "not known"
    if live.read_error:
        return "the core is not read"
    if not live.reading:
        return f"the core is read every {live.interval_seconds:g} s"
    return f"down {_rate(live.down)}, up {_rate(live.up)}"


def _sockets(model: TopModel) -> str:
    core = model.sample.core if model.sample is not None else None
    if core is None:
        return "no core runs"
    return f"{core.open_files:,} of the core" if core.open_files is not None else "not known"


def _calls(model: TopModel) -> str:
    calls, errors = model.rates.calls, model.rates.errors
    if calls is None or errors is None:
        return "of the API"
    return f"{calls:.1f}/s of the API, {errors:.1f} errors"


def _core_runs(model: TopModel) -> bool:
    return model.sample is not None and model.sample.core is not None


def _core(model: TopModel, report: NodeReport | None) -> str:
    assert model.sample is not None
    parts = []
    if report is not None:
        core = report.core
        parts.append(f"Xray {core.version} {core.name.partition(' (')[0]}".replace("  ", " "))
        if core.pid:
            parts.append(f"run {core.run}")
        if core.up_seconds is not None:
            parts.append(f"up {duration(core.up_seconds)}")
        if core.deaths:
            parts.append(f"ended by itself {core.deaths}x")
    process = model.sample.core
    if process is None:
        return " · ".join([*parts, "does not run"])
    if model.rates.core_cpu is not None:
        parts.append(f"{model.rates.core_cpu:.0%} CPU")
    return " · ".join([*parts, size(process.memory_bytes)])


def _users(report: NodeReport, live: LiveReport | None) -> str:
    users = report.users
    text = f"{users.desired:,} desired, {users.applied:,} applied, {users.rejected:,} rejected"
    if live is not None:
        text += f" · {live.online:,} online from {live.addresses:,} addresses"
    return text


def _workers(model: TopModel) -> Iterator[Text]:
    rows = model.workers
    shown = rows if len(rows) <= WORKERS else rows[: WORKERS - 1]
    for number, row in enumerate(shown):
        worker = row.worker
        rate = f"{row.calls:.1f}/s" if row.calls is not None else "-"
        connections = f"{worker.connections:,} conn" if worker.kind == "rest" else ""
        text = (
            f"{worker.kind:<4} {worker.pid:>7} {rate:>9} {worker.under_way:>6,} calls {connections:>11}"
            f" {size(worker.memory_bytes):>9} {worker.lag_seconds * 1000:>6.0f} ms"
        )
        yield _labelled("" if number else "workers", text)
    if len(rows) > len(shown):
        calls = sum(row.calls or 0.0 for row in rows[len(shown) :])
        yield _labelled("", f"and {len(rows) - len(shown)} others, {calls:.1f}/s together (pgnode workers)")


def _list(model: TopModel, width: int, room: int) -> Iterator[Text]:
    """Draw the list into so many lines."""
    if room <= 0 or model.sample is None:
        return
    live = model.sample.live
    with_addresses = model.listed == "users" and width >= NARROW
    columns = ["down", "up", "total", *(["addresses"] if with_addresses else [])]
    name_width = max(10, width - FIGURE_WIDTH * len(columns))
    title = Text(f"{model.listed + ('▼' if model.sort == 'name' else ''):<{name_width}}", style="bold reverse")
    for column in columns:
        title.append(f"{column + ('▼' if column == model.sort else ''):>{FIGURE_WIDTH}}")
    yield title
    rows = model.rows
    if not rows and room > 1:
        yield Text(_why_none(model.listed, live), style="dim")
        return
    fit = room - 1 if len(rows) <= room - 1 else room - 2
    for flow in rows[: max(0, fit)]:
        name = Text(printable(flow.name))
        name.truncate(name_width - 1, overflow="ellipsis", pad=True)
        line = name.append(" ")
        for figure in (_rate(flow.down), _rate(flow.up), size(flow.total)):
            line.append(f"{figure:>{FIGURE_WIDTH}}")
        if with_addresses:
            line.append(f"{flow.addresses or '':>{FIGURE_WIDTH}}")
        yield line
    more = (live.users_moving if live is not None and model.listed == "users" else len(rows)) - max(0, fit)
    if fit < len(rows) and room > 1:
        yield Text(f"and {more:,} more", style="dim")


def _warnings(model: TopModel) -> Iterator[Text]:
    report = model.sample.facts.report if model.sample is not None else None
    for number, found in enumerate(report.warnings[-WARNINGS:] if report is not None else ()):
        at = datetime.datetime.fromtimestamp(found.at).astimezone()
        again = f" ({found.times} times)" if found.times > 1 else ""
        tone = Tone.WARN if found.level == "warning" else Tone.BAD
        yield _labelled("" if number else "warnings", f"{at:%H:%M:%S} {found.text}{again}", tone)


def _why_none(listed: str, live: LiveReport | None) -> str:
    if live is None:
        return ""
    if listed == "inbounds" and live.inbounds_counted is False:
        return NOT_COUNTED
    return "nothing moved between the last two readings of the core"
