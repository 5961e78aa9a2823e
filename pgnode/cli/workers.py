"""``pgnode workers``: the API workers of a node, as the system sees them."""

from __future__ import annotations

from dataclasses import asdict

from pgnode.cli.facts import find_facts
from pgnode.cli.screen import Screen
from pgnode.cli.seen import SeenWorker
from pgnode.cli.target import Named, find_target
from pgnode.cli.texts import count, duration, size
from pgnode.errors import NotRunningError

_HEAD = ("kind", "pid", "up", "memory", "CPU", "files")


def show_workers(named: Named, *, json_wanted: bool = False) -> int:
    """Print a line for each worker.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot be told which node is meant, or it may not be looked at.
        NotRunningError: It does not run.
    """
    target = find_target(named)
    if target.pid is None:
        raise NotRunningError(f"no node runs with STATE_DIR={target.settings.state_dir}: it has no workers")
    facts, screen = find_facts(target), Screen()
    restarts = {each.name: each.restarts for each in facts.report.processes} if facts.report is not None else {}
    if json_wanted:
        screen.json({"workers": [asdict(worker) for worker in facts.workers], "restarts": restarts})
        return 0
    for line in table(facts.workers):
        screen.line(line)
    again = [f"{name} {count(times, 'time')}" for name, times in restarts.items() if times]
    if again:
        screen.line(f"started again since the supervisor began: {', '.join(again)}")
    return 0


def table(workers: list[SeenWorker]) -> list[str]:
    """Return the lines of a table, its columns as wide as they have to be."""
    rows = [
        _HEAD,
        *(
            (
                worker.kind,
                str(worker.pid),
                duration(worker.up_seconds),
                size(worker.memory_bytes),
                f"{worker.cpu_seconds:.1f} s",
                "?" if worker.open_files is None else str(worker.open_files),
            )
            for worker in workers
        ),
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
