"""What the system allows this process."""

from __future__ import annotations

import contextlib
import resource


def allow_many_files() -> None:
    """Allow as many open files as this process and its children may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
