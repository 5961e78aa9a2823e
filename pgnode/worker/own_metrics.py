"""The metrics of one worker, for while the supervisor does not answer.

No counters are among them: the supervisor's are sums over all workers, and one that fell to those of a single worker would be
taken for a new beginning.
"""

from __future__ import annotations

import platform

from pgnode import __version__
from pgnode.bus.reports import Report
from pgnode.metrics.series import Series


def own_metrics(report: Report, core_version: str, accept: str) -> tuple[str, bytes]:
    """Write down how a worker is.

    Args:
        report: How it is.
        core_version: The core's version, as far as the worker knows.
        accept: The Accept header of whoever asks.

    Returns:
        The content type, and the text.
    """
    series = Series()
    process = f"{report.kind}_worker"
    series.set("supervisor_up", 0)
    series.set("build_info", 1, __version__, core_version, "", platform.python_version())
    for face, number in report.in_flight.items():
        series.set("api_requests_in_flight", number, face)
    for face, number in report.connections.items():
        series.set("api_connections", number, face)
    series.set("api_log_viewers", report.log_viewers)
    series.set("loop_lag_seconds", report.lag_seconds, process)
    series.set("process_resident_memory_bytes", report.memory_bytes, process)
    series.set("process_open_fds", report.open_files, process)
    series.set("process_max_fds", report.max_files, process)
    # A worker whose supervisor answers needs none of it.
    from pgnode.metrics.exposition import render  # noqa: PLC0415

    return render(series, accept)
