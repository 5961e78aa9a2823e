"""How this node was installed, and whether it may upgrade itself with pip."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pgnode
from pgnode.errors import UnsupportedError
from pgnode.os_support import container

_OR_COMMAND: Final = "; or set UPDATE_COMMAND to a command that does so"


@dataclass(frozen=True, slots=True)
class Installation:
    """A virtual environment into which pip put this node, and may put the next version."""

    #: The environment's Python.
    python: str
    #: The environment.
    prefix: Path
    #: The folder of its packages.
    packages: Path
    version: str


def find_installation(
    package: Path | None = None,
    prefix: Path | None = None,
    base: Path | None = None,
    marks: Sequence[Path] = container.MARKS,
) -> Installation:
    """Find out how this node was installed.

    Args:
        package: The folder of the running code; None for this process's.
        prefix: The environment; None for this process's.
        base: The Python that the environment was made with; None for this process's.
        marks: Files that only a container has.

    Returns:
        The installation, where the node may upgrade it.

    Raises:
        UnsupportedError: It may not; the text says how it is updated instead.
    """
    package = package if package is not None else Path(pgnode.__file__).parent
    prefix = prefix if prefix is not None else Path(sys.prefix)
    base = base if base is not None else Path(sys.base_prefix)
    packages = package.parent
    records = sorted(packages.glob("pgnode-*.dist-info"))
    if not records:
        raise UnsupportedError(
            f"this node runs from a checkout ({packages}): update it there with `git pull` and `make install`, then run `pgnode "
            f"restart`{_OR_COMMAND}"
        )
    if _is_of_an_image(prefix, marks):
        raise UnsupportedError(
            "this node runs from the image of a container, and what is installed there is gone with the container: start a "
            f"container of a newer image, with the same volume{_OR_COMMAND}"
        )
    installer = _installer(records[-1])
    if prefix == base or installer != "pip":
        by = f"was installed by {installer}" if installer not in ("", "pip") else "belongs to the system's Python"
        raise UnsupportedError(
            f"pgnode in {packages} {by}: update it as it was installed, then run `pgnode restart`{_OR_COMMAND}"
        )
    if not all(os.access(folder, os.W_OK) for folder in (packages, prefix / "bin")):
        raise UnsupportedError(
            f"the node's user may not write to {prefix}: run install.sh of the new version as root, or `{prefix}/bin/pip install "
            f"--upgrade pgnode` and `pgnode restart`{_OR_COMMAND}"
        )
    if importlib.util.find_spec("pip") is None:
        raise UnsupportedError(
            f"{prefix} has no pip: run `{prefix}/bin/python -m ensurepip` once, or update it as it was installed{_OR_COMMAND}"
        )
    return Installation(sys.executable, prefix, packages, pgnode.__version__)


def _is_of_an_image(prefix: Path, marks: Sequence[Path]) -> bool:
    """Whether the environment ends with the container: one on a volume does not."""
    return any(mark.exists() for mark in marks) and prefix.stat().st_dev == Path("/").stat().st_dev


def _installer(record: Path) -> str:
    """Return who installed a package, as its record says."""
    try:
        return (record / "INSTALLER").read_text(encoding="utf-8").strip()
    except (OSError, ValueError):
        return ""
