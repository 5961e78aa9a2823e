"""The table of processes."""

from __future__ import annotations

from pgnode.supervisor.processes.catalogue import PROCESSES


def test_each_kind_of_process_is_told_of_once() -> None:
    assert len({process.name for process in PROCESSES}) == len(PROCESSES)
    assert all(process.duty and process.kept_up_by and process.without_supervisor for process in PROCESSES)
