"""Workers of other hosts and versions in the metrics."""

from __future__ import annotations

from dataclasses import replace

from pgnode import __version__
from pgnode.bus.protocol import PROTOCOL
from pgnode.bus.reports import Report
from pgnode.supervisor.figures.series import series_of
from tests.unit.supervisor.figures.test_series import everything


def test_workers_of_other_hosts_and_versions_are_told_apart() -> None:
    figures = everything()
    alive = [
        Report(1, "rest", host="here", version=__version__),
        Report(1, "rest", host="east", version="0.1"),
        Report(1, "grpc", host="east", version="9.9", protocol=PROTOCOL + 1),
    ]
    values = series_of(replace(figures, workers=replace(figures.workers, alive=alive, wanted={}))).values
    assert values["workers"] == {("rest",): 2, ("grpc",): 1}
    assert values["workers_wanted"] == {("rest",): 0, ("grpc",): 0}, "of a supervisor that has none of its own"
    assert values["worker_hosts"] == {(): 2}
    assert {labels: number for labels, number in values["workers_by_version"].items() if number} == {
        ("rest", "same"): 1,
        ("rest", "other"): 1,
        ("grpc", "refused"): 1,
    }
