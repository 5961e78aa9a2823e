"""``pgnode workers``: the API workers of a node, as the system sees them, and those of other hosts, as they report."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import Any, Literal

from pgnode import __version__
from pgnode.bus.protocol import PROTOCOL
from pgnode.cli.asking import ask_node
from pgnode.cli.facts import find_facts, is_stopped
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.seen import SeenWorker
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.texts import count as count_of
from pgnode.cli.texts import duration, size
from pgnode.cli.verdict import NOT_WELL, WELL, exit_code_of
from pgnode.errors import NotAnsweringError, NotRunningError, OperatorError
from pgnode.supervisor.control import messages
from pgnode.supervisor.control.live_report import LiveReport, WorkerReport
from pgnode.supervisor.control.worker_orders import SETTING as SETTINGS

#: Seconds that new workers may take to come up, and others to end.
ORDER_SECONDS = 130.0

_HEAD = ("kind", "pid", "up", "memory", "CPU", "files")

#: Added where workers run without a supervisor beside them (``pgnode worker``).
_HEAD_ALONE = ("host", "version")


def show_workers(named: Named, *, json_wanted: bool = False) -> int:
    """Print a line for each worker. Return 4 where the supervisor does not answer; raise NotRunningError where none runs."""
    target = find_target(named)
    if target.pid is None:
        raise NotRunningError(f"no node runs with STATE_DIR={target.settings.state_dir}: it has no workers")
    facts, screen = find_facts(target), Screen()
    elsewhere = _alone(target)
    restarts = {each.name: each.restarts for each in facts.report.processes} if facts.report is not None else {}
    if json_wanted:
        screen.json(
            {
                "workers": [asdict(worker) for worker in facts.workers],
                "alone": [asdict(worker) for worker in elsewhere],
                "restarts": restarts,
            }
        )
        return exit_code_of(facts.report, target.pid)
    for line in table(facts.workers, elsewhere):
        screen.line(line)
    again = [f"{name} {count_of(times, 'time')}" for name, times in restarts.items() if times]
    if again:
        screen.line(f"started again since the supervisor began: {', '.join(again)}")
    if facts.report is None:
        say(f"the supervisor (pid {target.pid}) does not answer: {facts.silence}", error=True)
    return exit_code_of(facts.report, target.pid)


def order_workers(
    named: Named,
    do: Literal["add", "remove", "restart"],
    *,
    kind: str = "rest",
    count: int = 1,
    pid: int | None = None,
    json_wanted: bool = False,
) -> int:
    """Have a node change its workers, and wait until it has.

    Args:
        named: What the operator said about which node is meant.
        do: What to do.
        kind: "rest" or "grpc", for more or fewer.
        count: How many more, or fewer.
        pid: The one that is replaced; None for all.
        json_wanted: Print JSON.

    Returns:
        The exit code: 0, or 4 where a worker has not ended in time.

    Raises:
        OperatorError: The node does not run, does not answer, or says why not.
    """
    target = find_target(named)
    if target.why and not json_wanted:
        say(target.why)
    if target.pid is not None and is_stopped(target.pid):
        raise NotAnsweringError(f"the supervisor (pid {target.pid}) was stopped by a signal (SIGSTOP): kill -CONT it")
    values = {"do": do, "pid": pid} if do == "restart" else {"do": do, "kind": kind, "count": count}
    answer = ask_node(target, messages.WORKERS, values, seconds=ORDER_SECONDS)
    told = {name: value for name, value in values.items() if value is not None}
    note(target.settings, "node", "workers changed", told)
    if json_wanted:
        Screen().json(answer)
    else:
        for sentence in order_sentences(answer, "" if do == "restart" else kind):
            say(sentence)
    return NOT_WELL if answer.get("left") else WELL


def order_sentences(answer: Mapping[str, Any], kind: str) -> Iterator[str]:
    """Say what came of it.

    Args:
        answer: What the supervisor says.
        kind: The kind of workers that was changed; "" for all of them.

    Yields:
        Sentences.
    """
    before, now = answer.get("before") or {}, answer.get("now") or {}
    for one, pids in now.items():
        was = before.get(one) or []
        if kind in ("", one) and (pids or was):
            yield (
                f"{one}: {count_of(len(pids), 'worker')} (pid {', '.join(map(str, pids))}); before: {len(was)}"
                f" (pid {', '.join(map(str, was))})"
            )
    if left := answer.get("left"):
        yield f"not ended yet, and goes on: pid {', '.join(map(str, left))}; see pgnode logs"
    if kind and (answer.get("added") or {}).get(kind):
        yield (
            "until the next restart or reload, which take the number in the settings: "
            f"{SETTINGS[kind]}={len(now.get(kind) or [])} keeps it"
        )


def _alone(target: Target) -> list[WorkerReport]:
    """Return the workers that ``pgnode worker`` runs, on all hosts, as they report; none where the supervisor does not answer."""
    try:
        live = LiveReport.decode(ask_node(target, messages.LIVE).get("live"))
    except OperatorError:
        return []
    return [worker for worker in live.workers if worker.alone]


def table(workers: list[SeenWorker], elsewhere: list[WorkerReport] | None = None) -> list[str]:
    """Return the lines of a table, its columns as wide as they have to be.

    Args:
        workers: Those of the supervisor, as the system sees them.
        elsewhere: Those without one beside them, as they report.

    Returns:
        The lines.
    """
    rows = [
        _row(each.kind, each.pid, each.up_seconds, each.memory_bytes, each.cpu_seconds, each.open_files)
        for each in workers
    ]
    if elsewhere:
        rows = [
            (*_HEAD, *_HEAD_ALONE),
            *((*row, "here", __version__) for row in rows),
            *(
                (
                    *_row(each.kind, each.pid, each.up_seconds, each.memory_bytes, each.cpu_seconds, each.open_files),
                    each.host,
                    version_of(each),
                )
                for each in elsewhere
            ),
        ]
    else:
        rows = [_HEAD, *rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _row(kind: str, pid: int, up: float, memory: int, cpu: float, files: int | None) -> tuple[str, ...]:  # noqa: PLR0917
    return kind, str(pid), duration(up), size(memory), f"{cpu:.1f} s", "?" if files is None else str(files)


def version_of(worker: WorkerReport) -> str:
    """Return the version of a worker, and what is to be said of one that is another than this one's."""
    version = worker.version or "unknown"
    if worker.protocol != PROTOCOL:
        return f"{version}: serves nobody, it speaks protocol {worker.protocol} of the bus and this node {PROTOCOL}"
    return version if version == __version__ else f"{version} (this node: {__version__})"
