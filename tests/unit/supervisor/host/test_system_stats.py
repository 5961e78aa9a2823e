"""The machine's load, from two samples."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest
from structlog.testing import capture_logs

from pgnode.supervisor.host.cgroup import Limits
from pgnode.supervisor.host.system_stats import SAMPLES_PER_LOOK, SystemSampler


def network(received: int, sent: int) -> dict[str, SimpleNamespace]:
    loopback = SimpleNamespace(bytes_recv=10**12, bytes_sent=10**12)
    return {"lo": loopback, "eth0": SimpleNamespace(bytes_recv=received, bytes_sent=sent)}


def test_speeds_are_differences_and_never_negative(monkeypatch: pytest.MonkeyPatch) -> None:
    counters = [network(0, 0), network(10**9, 2 * 10**9), network(0, 0)]
    monkeypatch.setattr(psutil, "net_io_counters", lambda pernic: counters.pop(0))
    sampler = SystemSampler(Limits)
    busy, quiet = sampler.sample(), sampler.sample()
    assert busy.outgoing_bandwidth_speed > busy.incoming_bandwidth_speed > 0
    assert quiet.incoming_bandwidth_speed == quiet.outgoing_bandwidth_speed == 0


def test_without_limits_the_figures_are_the_machines() -> None:
    figures = SystemSampler(Limits).sample()
    assert figures.mem_total == psutil.virtual_memory().total
    assert 0 < figures.mem_used < figures.mem_total
    assert figures.cpu_cores == psutil.cpu_count()
    assert figures.uptime > 0


def test_a_group_that_does_not_tell_its_usage() -> None:
    figures = SystemSampler(lambda: Limits(1024, None, None, None)).sample()
    assert figures.mem_total == figures.mem_used == 1024


def test_a_system_that_hides_its_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """As some containers do: ``/proc/stat`` and its like are missing, empty, or something else."""

    def fail(*_: object, **__: object) -> object:
        raise TypeError("scputimes")

    for name in ("cpu_percent", "cpu_count", "virtual_memory", "net_io_counters"):
        monkeypatch.setattr(psutil, name, fail)
    with capture_logs() as logs:
        sampler = SystemSampler(Limits)
        figures = [sampler.sample(), sampler.sample()][1]
    assert (figures.mem_total, figures.mem_used, figures.cpu_cores, figures.cpu_usage) == (0, 0, 1, 0)
    assert figures.incoming_bandwidth_speed == 0
    assert sorted(line["what"] for line in logs) == ["memory", "network", "processors"], "each is told once"
    assert SystemSampler(lambda: Limits(1024, 5, None, None)).sample().mem_total == 1024


def test_limits_that_a_group_is_given_later_are_found() -> None:
    looks: list[Limits] = []

    def look() -> Limits:
        looks.append(Limits() if not looks else Limits(1024, 5, None, None))
        return looks[-1]

    sampler = SystemSampler(look)
    totals = [sampler.sample().mem_total for _ in range(SAMPLES_PER_LOOK + 2)]
    assert totals[:-3] == [psutil.virtual_memory().total] * (SAMPLES_PER_LOOK - 1)
    assert totals[-3:] == [1024] * 3
    assert len(looks) == 4, "a group with limits is looked at each time"
