"""Processes of a node, found from outside: what runs, and what is left behind."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import psutil


def tree(pid: int) -> list[psutil.Process]:
    """Return a process and everything below it; empty when it has gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def command_line(process: psutil.Process) -> str:
    """Return the words it was started with; empty when it has gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def is_running(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def running(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Those that are there and no zombies; by identity, so that a pid given to somebody else does not count."""
    return [process for process in processes if process.is_running() and is_running(process.pid)]


def summary(processes: Sequence[psutil.Process]) -> str:
    """Say in a few words what runs: "2 gunicorn, 1 supervisor, 1 valkey-server"."""
    counts: dict[str, int] = {}
    for process in processes:
        if not (command := command_line(process)):
            continue
        known = [name for name in ("valkey-server", "gunicorn") if name in command]
        name = "supervisor" if process is processes[0] else known[0] if known else "helper"
        counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
