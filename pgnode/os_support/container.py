"""Whether this process runs in a container."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

#: Files that Docker and Podman put into a container.
MARKS: Final = (Path("/.dockerenv"), Path("/run/.containerenv"))

#: Variables that Podman, and Kubernetes with any engine, set in one.
VARIABLES: Final = ("container", "KUBERNETES_SERVICE_HOST")


def in_container(environment: Mapping[str, str], marks: Sequence[Path] = MARKS) -> bool:
    """Tell whether this process runs in a container.

    Args:
        environment: The environment of the start.
        marks: Files that only a container has.

    Returns:
        Whether it does.
    """
    return any(environment.get(name) for name in VARIABLES) or any(mark.exists() for mark in marks)
