"""What a worker tells while the supervisor is silent."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from pgnode.bus.reports import Report
from pgnode.worker.own_metrics import own_metrics


def test_that_the_supervisor_is_silent_and_no_counters() -> None:
    report = Report(
        1, "rest", {"calls/rest/GetStats/OK": 5}, in_flight={"rest": 1}, connections={"rest": 2}, memory_bytes=10
    )
    content_type, text = own_metrics(report, "26.10.10", "")
    assert content_type.startswith("text/plain")
    metrics = {metric.name: metric for metric in text_string_to_metric_families(text.decode())}
    assert metrics["pgnode_supervisor_up"].samples[0].value == 0
    assert metrics["pgnode_build_info"].samples[0].labels["core_version"] == "26.10.10"
    assert metrics["pgnode_api_requests_in_flight"].samples[0].value == 1
    assert metrics["pgnode_api_connections"].samples[0].labels == {"face": "rest"}
    assert metrics["pgnode_process_resident_memory_bytes"].samples[0].labels == {"process": "rest_worker"}
    assert {metric.type for metric in metrics.values()} == {"gauge"}, "a counter would fall"
