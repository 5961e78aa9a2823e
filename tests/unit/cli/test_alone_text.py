"""What is said of API workers."""

from __future__ import annotations

import pytest

from pgnode.cli.alone_text import alone_text
from pgnode.supervisor.control.report import AloneReport


@pytest.mark.parametrize(
    ("workers", "text"),
    [
        (AloneReport("east", "rest", "1.0", True, 2), "2 REST workers on east"),
        (AloneReport("east", "grpc", "0.9", True, 1), "1 gRPC worker on east (version 0.9)"),
        (
            AloneReport("east", "odd", "9.9", False, 1),
            "1 odd worker on east (version 9.9, which speaks another protocol of the bus and serves nobody)",
        ),
    ],
)
def test_workers_alone_are_told_apart(workers: AloneReport, text: str) -> None:
    assert alone_text(workers, "1.0") == text
