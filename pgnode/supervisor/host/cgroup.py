"""The limits of the control group that the node runs in: in a container they take the machine's place.

Files and their meaning: the kernel's ``Documentation/admin-guide/cgroup-v2.rst`` and ``cgroup-v1/``. A group is limited by
all groups above it, so the tightest of them counts. Inside a container the path in ``/proc/self/cgroup`` may be the host's; what
is not found there is looked for at the top of the mounted tree, which then is the container's own group.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf
from pathlib import Path

ROOT = Path("/sys/fs/cgroup")
MEMBERSHIP = Path("/proc/self/cgroup")

#: Version 1 says "no limit" with the largest number of pages that fits.
_NO_LIMIT_BYTES = 1 << 60


@dataclass(frozen=True, slots=True)
class Limits:
    """None: no limit, or not known. Usage is that of the group whose limit counts."""

    memory_bytes: int | None = None
    #: Without what the kernel can drop at once (file pages not in use).
    memory_used_bytes: int | None = None
    #: Processors' worth of time that the group may use, such as 1.5.
    cpus: float | None = None
    #: Processor time used so far.
    cpu_seconds: float | None = None


def read_limits(root: Path = ROOT, membership: Path = MEMBERSHIP) -> Limits:
    """Read the limits as they are now; files that cannot be read count as no limit.

    Args:
        root: Where control groups are mounted.
        membership: The file that names this process's groups.

    Returns:
        The tightest limits of the group and all above it.
    """
    paths = _paths(membership)
    memory_bytes, memory_used_bytes = _memory_2(root, paths)
    if memory_bytes is None:
        memory_bytes, memory_used_bytes = _memory_1(root, paths)
    cpus, cpu_seconds = _cpu_2(root, paths)
    if cpus is None:
        cpus, cpu_seconds = _cpu_1(root, paths)
    return Limits(memory_bytes, memory_used_bytes, cpus, cpu_seconds)


def usable_processors(limits: Callable[[], Limits] = read_limits) -> float:
    """Return how many processors' worth of time the node may use: what it may run on, or less where its group is limited."""
    return min(len(os.sched_getaffinity(0)), limits().cpus or inf)


def _paths(membership: Path) -> dict[str, str]:
    """Return controller -> path of our group; the unified tree is the controller ""."""
    found = {}
    for line in _text(membership).splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _groups(tree: Path, path: str | None) -> Iterator[Path]:
    """Return our group and all above it, within the mounted tree."""
    group = tree / (path or "").strip("/")
    while group != tree:
        if group.is_dir():
            yield group
        group = group.parent
    yield tree


def _memory_2(root: Path, paths: dict[str, str]) -> tuple[int | None, int | None]:
    found: list[tuple[int, Path]] = []
    for group in _groups(root, paths.get("")):
        limit = _number(group / "memory.max")
        if limit is not None:
            found.append((limit, group))
    if not found:
        return None, None
    limit, group = min(found)
    return limit, _used(_number(group / "memory.current"), _fields(group / "memory.stat").get("inactive_file"))


def _memory_1(root: Path, paths: dict[str, str]) -> tuple[int | None, int | None]:
    found: list[tuple[int, Path]] = []
    for group in _groups(root / "memory", paths.get("memory")):
        limit = _number(group / "memory.limit_in_bytes")
        if limit is not None and limit < _NO_LIMIT_BYTES:
            found.append((limit, group))
    if not found:
        return None, None
    limit, group = min(found)
    used = _number(group / "memory.usage_in_bytes")
    return limit, _used(used, _fields(group / "memory.stat").get("total_inactive_file"))


def _cpu_2(root: Path, paths: dict[str, str]) -> tuple[float | None, float | None]:
    found: list[tuple[float, Path]] = []
    for group in _groups(root, paths.get("")):
        quota, _, period = _text(group / "cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            found.append((int(quota) / int(period), group))
    if not found:
        return None, None
    cpus, group = min(found)
    used = _fields(group / "cpu.stat").get("usage_usec")
    return cpus, used / 1e6 if used is not None else None


def _cpu_1(root: Path, paths: dict[str, str]) -> tuple[float | None, float | None]:
    found: list[tuple[float, Path]] = []
    for group in _groups(root / "cpu", paths.get("cpu")):
        quota, period = _number(group / "cpu.cfs_quota_us"), _number(group / "cpu.cfs_period_us")
        if quota is not None and period:
            found.append((quota / period, group))
    if not found:
        return None, None
    cpus, group = min(found)
    accounts = root / "cpuacct" / group.relative_to(root / "cpu")
    used = _number(accounts / "cpuacct.usage")
    return cpus, used / 1e9 if used is not None else None


def _used(used: int | None, droppable: int | None) -> int | None:
    return max(0, used - (droppable or 0)) if used is not None else None


def _fields(path: Path) -> dict[str, int]:
    """Return the fields of a file with ``name number`` on each line."""
    found = {}
    for line in _text(path).splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            found[name] = int(value)
    return found


def _number(path: Path) -> int | None:
    """Return the number in a file; None for a word ("max"), a negative number, or no such file."""
    text = _text(path).strip()
    return int(text) if text.isdigit() else None


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
