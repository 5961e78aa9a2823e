"""Limits of control groups, read from trees as the kernel shows them; and what they make of the system's figures."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import psutil

from pgnode.supervisor.host.cgroup import Limits, read_limits, usable_processors
from pgnode.supervisor.host.system_stats import SystemSampler

MIB = 1024 * 1024


def _limits(folder: Path, membership: str, files: Mapping[str, str]) -> Limits:
    for name, text in files.items():
        path = folder / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (folder / "self").write_text(membership)
    return read_limits(folder / "cgroup", folder / "self")


def test_the_processors_are_those_that_may_be_used() -> None:
    allowed = len(os.sched_getaffinity(0))
    assert usable_processors(Limits) == allowed
    assert usable_processors(lambda: Limits(cpus=0.5)) == 0.5
    assert usable_processors(lambda: Limits(cpus=allowed + 1.0)) == allowed


def test_version_2_in_a_container(tmp_path: Path) -> None:
    found = _limits(
        tmp_path,
        "0::/\n",
        {
            "memory.max": f"{512 * MIB}\n",
            "memory.current": f"{300 * MIB}\n",
            "memory.stat": f"anon 1\ninactive_file {100 * MIB}\n",
            "cpu.max": "150000 100000\n",
            "cpu.stat": "usage_usec 2500000\nuser_usec 1\n",
        },
    )
    assert found == Limits(512 * MIB, 200 * MIB, 1.5, 2.5)


def test_the_tightest_group_above_counts(tmp_path: Path) -> None:
    found = _limits(
        tmp_path,
        "0::/system.slice/node.service\n",
        {
            "system.slice/memory.max": f"{256 * MIB}\n",
            "system.slice/memory.current": f"{10 * MIB}\n",
            "system.slice/node.service/memory.max": f"{512 * MIB}\n",
            "system.slice/node.service/memory.current": f"{5 * MIB}\n",
            "system.slice/node.service/cpu.max": "max 100000\n",
        },
    )
    assert found == Limits(256 * MIB, 10 * MIB, None, None)


def test_version_1_with_the_hosts_path_in_a_container(tmp_path: Path) -> None:
    found = _limits(
        tmp_path,
        "4:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n",
        {
            "memory/memory.limit_in_bytes": f"{128 * MIB}\n",
            "memory/memory.usage_in_bytes": f"{64 * MIB}\n",
            "memory/memory.stat": f"total_inactive_file {4 * MIB}\n",
            "cpu/cpu.cfs_quota_us": "50000\n",
            "cpu/cpu.cfs_period_us": "100000\n",
            "cpuacct/cpuacct.usage": "3000000000\n",
        },
    )
    assert found == Limits(128 * MIB, 60 * MIB, 0.5, 3.0)


def test_no_limits(tmp_path: Path) -> None:
    files = {
        "memory/memory.limit_in_bytes": "9223372036854771712\n",
        "cpu/cpu.cfs_quota_us": "-1\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "memory.max": "max\n",
        "cpu.max": "max 100000\n",
    }
    assert _limits(tmp_path, "4:memory:/a\n1:cpu:/a\n0::/\n", files) == Limits()
    assert read_limits(tmp_path / "none", tmp_path / "neither") == Limits()


def test_system_figures_are_those_of_the_group() -> None:
    used = iter([10.0, 10_000.0])
    sampler = SystemSampler(lambda: Limits(64 * MIB, 16 * MIB, 0.5, next(used)))
    figures = sampler.sample()
    assert (figures.mem_total, figures.mem_used, figures.cpu_cores) == (64 * MIB, 16 * MIB, 1)
    assert figures.cpu_usage == 100.0  # more than all of it is a rounding of clocks


def test_a_limit_above_the_machine_is_none() -> None:
    sampler = SystemSampler(lambda: Limits(1 << 50, 1, 10_000.0, 1.0))
    figures = sampler.sample()
    assert figures.mem_total == psutil.virtual_memory().total
    assert figures.cpu_cores == psutil.cpu_count()
    assert 0 <= figures.cpu_usage <= 100
