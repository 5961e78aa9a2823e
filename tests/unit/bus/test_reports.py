"""Reports of workers: small, and read again as they were."""

from __future__ import annotations

import pytest

from pgnode.api.methods import METHODS
from pgnode.api.service.maintenance_calls import CALLS
from pgnode.bus.reports import Report
from pgnode.metrics.instruments import CALL_SECONDS

#: What a report may have; bytes.
REPORT_BYTES = 3 * 1024


def busy() -> Report:
    """The report of a worker that was called in every way, for weeks, and whose callers met some errors."""
    times = [*(float(12_345_678 // (n + 1)) for n in range(len(CALL_SECONDS) + 1)), 123_456.789012]
    counts = {f"calls/rest/{row.name}/OK": 12_345_678.0 for row in METHODS}
    counts |= {f"calls/maintenance/{call.name}/OK": 12_345_678.0 for call in CALLS}
    counts |= {f"calls/rest/{row.name}/BUS_UNAVAILABLE": 123.0 for row in METHODS[:10]}
    groups = {"rest": ("read", "take", "change", "start"), "maintenance": ("read", "maintain"), "monitor": ("read",)}
    return Report(
        number=1_234_567,
        kind="rest",
        counts=counts,
        times={f"times/{face}/{group}": times for face, found in groups.items() for group in found},
        in_flight=dict.fromkeys(groups, 1),
        connections={"rest": 10_000},
        idle_seconds=0.5,
        pid=4_194_304,
        host="a-host-with-a-long-name.example.com",
    )


def test_it_is_read_again_as_it_was() -> None:
    report = Report(number=3, kind="grpc", counts={"cpu/grpc": 1.25}, times={"times/grpc/read": [1.0, 0.5]}, last=True)
    assert Report.decode(report.encode()) == report


def test_it_is_small() -> None:
    assert len(busy().encode()) < REPORT_BYTES


def test_fields_of_another_version_are_left_out() -> None:
    assert Report.decode(b'{"number": 1, "kind": "rest", "of_later": [1]}') == Report(1, "rest")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'"x"',
        b"{}",
        b'{"number": 1}',
        b'{"number": "x", "kind": "rest"}',
        b'{"number": 1, "kind": "rest", "counts": []}',
        b'{"number": 1, "kind": "rest", "counts": {"a": "b"}}',
        b'{"number": 1, "kind": "rest", "times": {"a": 1}}',
        b'{"number": 1, "kind": "rest", "times": {"a": ["b"]}}',
    ],
)
def test_what_is_no_report_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"[a-z]"):
        Report.decode(data)
