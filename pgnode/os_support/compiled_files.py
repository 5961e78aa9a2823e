"""Whether Python finds compiled files of what a node loads.

Where it finds none and may write none, each process compiles all that it loads, at each start. That takes time, and memory that
stays. Without those of the standard library a small node took 97 MB in place of 90, and a health check 0.27 s of processor
time in place of 0.08. Docker's own images of Python are such installations: their Dockerfiles remove all compiled files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Final

#: One of the standard library, one of what is installed with the node, and the node itself.
PACKAGES: Final = ("asyncio", "redis", "pgnode")

#: Bytes of a compiled file before the code: what it is, flags, and of its source the time and the size.
_HEADER_BYTES: Final = 16


def uncompiled_folders(packages: Iterable[str] = PACKAGES) -> list[Path]:
    """Return the folders in which Python finds no compiled file that it takes.

    Args:
        packages: Those that are looked at. They are not imported.

    Returns:
        The folders that these packages are in, each once.
    """
    found: dict[Path, None] = {}
    for name in packages:
        spec = find_spec(name)
        if spec is not None and spec.origin is not None and not _is_compiled(spec):
            found[Path(spec.origin).parent.parent] = None
    return list(found)


def _is_compiled(spec: ModuleSpec) -> bool:
    """Return whether there is a compiled file that is no older than its source (PEP 552 has the format)."""
    if spec.cached is None or spec.origin is None:
        # It is no Python.
        return True
    with contextlib.suppress(OSError):
        with open(spec.cached, "rb") as file:
            header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return False
        if int.from_bytes(header[4:8], "little"):
            # By a digest of its source: whether that changed is not looked at here.
            return True
        source = Path(spec.origin).stat()
        known = int.from_bytes(header[8:12], "little"), int.from_bytes(header[12:16], "little")
        return known == (int(source.st_mtime) & 0xFFFF_FFFF, source.st_size & 0xFFFF_FFFF)
    return False
