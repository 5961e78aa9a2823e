"""``pgnode stats``: traffic of users, inbounds and outbounds, what is owed, and how old it all is.

The figures come from the node's store, also while the node is down; how old they are and who is online from its supervisor, which
stores before what it has counted so far.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import asdict

from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table

from pgnode.cli.output import takes_all_characters
from pgnode.cli.stored import no_state, not_running
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.texts import NOT_COUNTED, duration
from pgnode.cli.traffic import Flow, LiveTraffic, ShownTraffic, traffic_of
from pgnode.cli.verdict import exit_code_of, word_of
from pgnode.os_support.log_text import printable, printable_json
from pgnode.store.reader import read_state, stored_at
from pgnode.supervisor.control.client import NotAnsweredError, ask
from pgnode.supervisor.control.messages import TRAFFIC
from pgnode.supervisor.host.node_lock import running_pid

#: Seconds that the supervisor has to store and to answer.
ASK_SECONDS = 4.0

#: Seconds between two reports with ``--watch``.
WATCH_SECONDS = 2.0

#: An age below this is told in seconds and tenths.
SECONDS_SHOWN = 100.0

_NAMES = {"user": "users", "inbound": "inbounds", "outbound": "outbounds"}


def as_json(stored: ShownTraffic, *, one_line: bool = False) -> str:
    """Return everything there is as one JSON object; sizes in bytes, times in seconds."""
    polled = stored.polled
    made: dict[str, object] = {
        "state": stored.state,
        "stored_at": round(stored.stored_at),
        "core_runs": stored.core_run,
        "age_seconds": round(stored.age_seconds, 3) if stored.age_seconds is not None else None,
        "interval_seconds": polled.interval_ms / 1000 if polled is not None else None,
        "error": polled.error if polled is not None else "",
        "inbounds_counted": polled.inbounds_counted if polled is not None else None,
        "owed_bytes": {name: stored.total(kind).owed_bytes for kind, name in _NAMES.items()},
        "on_loan_bytes": {name: stored.on_loan_bytes[kind] for kind, name in _NAMES.items()},
    }
    for kind, name in _NAMES.items():
        made[name] = [_fields(flow, kind) for flow in stored.flows[kind]]
    return printable_json(json.dumps(made, indent=None if one_line else 2, ensure_ascii=not takes_all_characters()))


def _fields(flow: Flow, kind: str) -> dict[str, object]:
    fields = asdict(flow)
    if kind != "user":
        del fields["online"]
    return fields


def summary(stored: ShownTraffic) -> Iterator[str]:
    """Yield what the tables do not show, in sentences."""
    polled = stored.polled
    run = f"core run {stored.core_run}" if stored.core_run else "no core has run yet"
    if stored.state is None:
        yield f"{not_running(stored.stored_at, stored.pid)}; {run}"
    else:
        yield f"node {word_of(stored.state)}, {run}"
    if stored.state is None:
        pass
    elif stored.age_seconds is None or polled is None:
        yield "the core has not been read yet"
    else:
        yield f"read {_age(stored.age_seconds)} ago, every {polled.interval_ms / 1000:g} s while a core runs"
        yield f"{polled.counters:,} counters, the last reading took {polled.took_ms} ms"
    if polled is not None and polled.inbounds_counted is False:
        yield f"inbounds: {NOT_COUNTED}"
    if polled is not None and polled.error:
        yield f"the last reading failed: {printable(polled.error)}"
    yield "owed: counted, and not yet given to a caller that reads with reset"
    carried = [f"{_NAMES[kind]} {decimal(size)}" for kind, size in stored.on_loan_bytes.items() if size]
    if carried:
        yield f"of that on its way to a caller now: {', '.join(carried)}"


def _age(seconds: float) -> str:
    """Return an age as 3.2 s, 4 min 10 s, 2 h 5 min, or 3 d 4 h."""
    return f"{seconds:.1f} s" if seconds < SECONDS_SHOWN else duration(seconds)


def heading(stored: ShownTraffic, kind: str, top: int) -> str:
    """Return what stands above the table of a kind, at most ``top`` lines of which are shown, 0 = all of them."""
    count, total = len(stored.flows[kind]), stored.total(kind)
    first = f"{_NAMES[kind]}: {count:,}" + (" with counters" if kind == "user" else "")
    if 0 < top < count:
        first += f", the first {top:,} by traffic are shown" if top > 1 else ", the first by traffic is shown"
    return first + (f"; {total.online:,} online" if kind == "user" else "")


def tables(stored: ShownTraffic, top: int) -> Group:
    """Return the report for people; at most ``top`` lines of a kind, 0 = all of them."""
    parts: list[Table | str] = list(summary(stored))
    for kind in _NAMES:
        flows = stored.flows[kind]
        if not flows:
            continue
        table = Table(box=None, pad_edge=False, show_footer=len(flows) > 1)
        total = stored.total(kind)
        table.add_column(kind, "all together", overflow="fold")
        for column, size in (("up", total.uplink_bytes), ("down", total.downlink_bytes), ("owed", total.owed_bytes)):
            table.add_column(column, decimal(size), justify="right", no_wrap=True)
        if kind == "user":
            table.add_column("addresses online", justify="right")
        for flow in flows[:top] if top else flows:
            cells = [
                printable(flow.name),
                decimal(flow.uplink_bytes),
                decimal(flow.downlink_bytes),
                decimal(flow.owed_bytes),
            ]
            if kind == "user":
                cells.append(str(flow.online) if flow.online else "")
            table.add_row(*cells)
        parts += ["", heading(stored, kind, top), table]
    return Group(*parts)


def show_stats(
    named: Named = Named(),  # noqa: B008 - frozen
    *,
    json_wanted: bool,
    watch: bool,
    top: int,
    watch_seconds: float = WATCH_SECONDS,
    ask_seconds: float = ASK_SECONDS,
) -> int:
    """Print the report for a node.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.
        watch: Again and again until Ctrl-C.
        top: Lines of a kind at most, 0 = all.
        watch_seconds: Seconds between two looks.
        ask_seconds: Seconds that the supervisor has to answer.

    Returns:
        The exit code: 0; 3 where the node does not run, 4 where it does not answer.

    Raises:
        OperatorError: There is no store, or it cannot be read.
    """
    target = find_target(named)

    def read() -> Awaitable[ShownTraffic]:
        return _read(target, ask_seconds)

    with contextlib.suppress(KeyboardInterrupt):
        return asyncio.run(
            _report(read, json_wanted=json_wanted, watch_seconds=watch_seconds if watch else None, top=top)
        )
    return 0


async def _report(
    read: Callable[[], Awaitable[ShownTraffic]], *, json_wanted: bool, watch_seconds: float | None, top: int
) -> int:
    """Print one report and return the exit code, or print one after the other for good."""
    console = Console(highlight=False, markup=False)
    if json_wanted:
        while True:
            stored = await read()
            console.print(as_json(stored, one_line=watch_seconds is not None), soft_wrap=True)
            if watch_seconds is None:
                return exit_code_of(stored.state, stored.pid)
            await asyncio.sleep(watch_seconds)
    if watch_seconds is None:
        stored = await read()
        console.print(tables(stored, top))
        return exit_code_of(stored.state, stored.pid)
    with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
        while True:
            live.update(tables(await read(), top), refresh=True)
            await asyncio.sleep(watch_seconds)


async def _read(target: Target, ask_seconds: float) -> ShownTraffic:
    settings = target.settings
    # Without a supervisor there is nobody to wait for.
    pid = await asyncio.to_thread(running_pid, settings)
    live = await asyncio.to_thread(_ask, target, ask_seconds) if pid is not None else None
    # After the question, so that what was stored for it is there.
    state = await asyncio.to_thread(read_state, settings.store_path)
    if state is None:
        raise no_state(settings, pid)
    return traffic_of(state, live, stored_at(settings.store_path), pid)


def _ask(target: Target, seconds: float) -> LiveTraffic | None:
    """Ask the supervisor; None where it does not answer, or is of another version."""
    try:
        return LiveTraffic.decode(ask(target.settings.run_dir, TRAFFIC, seconds=seconds))
    except (NotAnsweredError, KeyError, TypeError, ValueError, AttributeError):
        return None
