"""Scripts that a config has the core run: files that ``routing`` and ``dns`` name. Pure, but for links that are followed.

Their language opens files and starts programs, so a script may do whatever the node's user may. A panel's key is no key to that:
an operator says which ones may be run.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.strings import by_the_core, strings

#: The parts of a config that may name one, and the field, in small letters: the core minds no capitals.
_SECTIONS: Final = ("routing", "dns")
_FIELD: Final = "script"


def scripts_of(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the scripts that a config names.

    Args:
        document: The config.

    Yields:
        The place and the path.
    """
    for section, part in document.items():
        if section.lower() in _SECTIONS and isinstance(part, dict):
            named = {key: value for key, value in part.items() if key.lower() == _FIELD}
            for place, path in strings({section: named}):
                if path and not place.startswith("a key"):
                    yield place, path


def script_fault(
    document: dict[str, Any], allowed: Sequence[Path], resolve: Callable[[str], str] = os.path.realpath
) -> str | None:
    """Say which script of a config may not be run, or None.

    Args:
        document: The config.
        allowed: Files, and folders of files, that may be run.
        resolve: Follows links in a path.

    Returns:
        A sentence that begins with the place.
    """
    roots = [Path(resolve(str(root))) for root in allowed]
    for place, path in scripts_of(document):
        # As this process finds it, and as the core will.
        files = {Path(resolve(found)) for found in (path, by_the_core(path))}
        if not path.startswith("/") or not all(
            any(file == root or root in file.parents for root in roots) for file in files
        ):
            return (
                f"config: {place} {short(path)} is a script, which may do all that the node may: an operator has to allow it in "
                "SCRIPT_PATHS"
            )
    return None
