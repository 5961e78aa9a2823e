"""``pgnode stats``: traffic of users, inbounds and outbounds, what is owed, and how old it all is, from the node's store."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import asdict

from redis.asyncio import Redis
from rich.console import Console, Group
from rich.filesize import decimal
from rich.live import Live
from rich.table import Table

from pgnode.bus.connection import BUS_ERRORS, connect, unreadable
from pgnode.bus.keys import Keys
from pgnode.bus.traffic import Flow, StoredTraffic, read_traffic
from pgnode.settings import Settings

#: Seconds between two looks with ``--watch``.
WATCH_SECONDS = 2.0

_NAMES = {"user": "users", "inbound": "inbounds", "outbound": "outbounds"}


def as_json(stored: StoredTraffic) -> str:
    """Everything there is, as one JSON object; sizes in bytes, times in seconds. Pure."""
    status, polled = stored.status, stored.polled
    made: dict[str, object] = {
        "state": status.state if status is not None else None,
        "core_runs": status.core_run if status is not None else 0,
        "age_seconds": round(stored.age_seconds, 3) if stored.age_seconds is not None else None,
        "interval_seconds": polled.interval_ms / 1000 if polled is not None else None,
        "error": polled.error if polled is not None else "",
        "owed_bytes": stored.owed_bytes,
        "on_loan_bytes": stored.on_loan_bytes,
    }
    for kind, name in _NAMES.items():
        made[name] = [_fields(flow, kind) for flow in stored.flows[kind]]
    return json.dumps(made, indent=2, ensure_ascii=False)


def _fields(flow: Flow, kind: str) -> dict[str, object]:
    fields = asdict(flow)
    if kind != "user":
        del fields["online"]
    return fields


def summary(stored: StoredTraffic) -> Iterator[str]:
    """What the tables do not show, in sentences. Pure."""
    status, polled = stored.status, stored.polled
    if status is None:
        yield "no state yet: the node has not run with this store"
        return
    yield f"node {status.state}, core run {status.core_run}"
    if stored.age_seconds is None or polled is None:
        yield "the core has not been read yet"
    else:
        yield (
            f"read {stored.age_seconds:.1f} s ago, every {polled.interval_ms / 1000:g} s; "
            f"{polled.counters} counters in {polled.took_ms} ms"
        )
    if polled is not None and polled.error:
        yield f"the last reading failed: {polled.error}"
    yield f"owed: {decimal(stored.owed_bytes)}, of which on their way to a caller: {decimal(stored.on_loan_bytes)}"


def tables(stored: StoredTraffic, top: int) -> Group:
    """The report for people; at most ``top`` lines of a kind, 0 = all of them."""
    parts: list[Table | str] = list(summary(stored))
    for kind, name in _NAMES.items():
        flows = stored.flows[kind]
        if not flows:
            continue
        shown = flows[:top] if top else flows
        title = f"{name}: {len(flows)}" + (f", the {len(shown)} with most traffic" if len(shown) < len(flows) else "")
        table = Table(title=title, title_justify="left", box=None, pad_edge=False)
        table.add_column(kind, overflow="fold")
        for column in ("up", "down", "owed", *(["online from"] if kind == "user" else [])):
            table.add_column(column, justify="right")
        for flow in shown:
            cells = [flow.name, decimal(flow.uplink_bytes), decimal(flow.downlink_bytes), decimal(flow.owed_bytes)]
            if kind == "user":
                cells.append(str(flow.online) if flow.online else "")
            table.add_row(*cells)
        parts += ["", table]
    return Group(*parts)


def report(settings: Settings, *, json_wanted: bool, watch: bool, top: int) -> None:
    """Print the report; with ``watch`` again and again until Ctrl-C. Raises OperatorError when the store is away."""
    asyncio.run(_report(settings, json_wanted=json_wanted, watch=watch, top=top))


async def _report(settings: Settings, *, json_wanted: bool, watch: bool, top: int) -> None:
    console = Console(highlight=False, markup=False)
    redis = connect(settings.bus_url, connections=1)
    keys = Keys(settings.redis_prefix)
    try:
        if json_wanted:
            while True:
                console.print(as_json(await _read(settings, redis, keys)), soft_wrap=True)
                if not watch:
                    return
                await asyncio.sleep(WATCH_SECONDS)
        if not watch:
            console.print(tables(await _read(settings, redis, keys), top))
            return
        with Live(console=console, auto_refresh=False, screen=console.is_terminal) as live:
            while True:
                live.update(tables(await _read(settings, redis, keys), top), refresh=True)
                await asyncio.sleep(WATCH_SECONDS)
    finally:
        await redis.aclose()


async def _read(settings: Settings, redis: Redis, keys: Keys) -> StoredTraffic:
    try:
        return await read_traffic(redis, keys)
    except BUS_ERRORS as error:
        raise unreadable(settings, error) from None
