"""Files that a config names: certificates, their keys, geo data, scripts. They are part of it, with content elsewhere. Pure.

A file is known with the parts that read it, since a running core can take it anew by these alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.geo_refs import SYSTEM_ASSET_DIRS, geo_file_names
from pgnode.xray.config.scripts import scripts_of

_FILE_KEYS: Final = ("certificatefile", "keyfile")

#: Readers that are no inbound.
RULES: Final = "routing rules"
REST: Final = "the rest of the config"


#: Who reads a file: (tag, True) for an inbound, else one of the names above and False.
Reader = tuple[str, bool]


def files_of(
    document: dict[str, Any], assets_dir: Path | None, cert_dir: Path | None = None
) -> dict[Path, set[Reader]]:
    """List the files that a config names.

    Args:
        document: The config.
        assets_dir: The folder of geo files that the core is told to use; the system's come after it.
        cert_dir: The folder where the core looks for certificates whose path is none of its own; None leaves them out.

    Returns:
        By path its readers: (name, whether that is the tag of an inbound). Geo files are there with every path they may have.
    """
    found: dict[Path, set[Reader]] = {}
    folders = ([assets_dir] if assets_dir is not None else []) + list(SYSTEM_ASSET_DIRS)
    for part, reader in _parts(document):
        paths = [path for text in _certificates(part) if (path := certificate_path(text, cert_dir)) is not None]
        paths += [folder / name for name in geo_file_names(part) for folder in folders]
        for path in paths:
            found.setdefault(path, set()).add(reader)
    for _, script in scripts_of(document):
        if script.startswith("/"):
            found.setdefault(Path(script), set()).add((REST, False))
    return found


def certificate_path(text: str, cert_dir: Path | None) -> Path | None:
    """Return the file that the core reads for the path of a certificate or key; None where that is not known."""
    if text.startswith("/"):
        return Path(text)
    return cert_dir / text if cert_dir is not None and text else None


def _parts(document: dict[str, Any]) -> Iterator[tuple[Any, Reader]]:
    for section, value in document.items():
        if section == "inbounds" and isinstance(value, list):
            for inbound in value:
                tag = inbound.get("tag") if isinstance(inbound, dict) else None
                yield inbound, (tag, True) if isinstance(tag, str) and tag else (REST, False)
        elif section == "routing" and isinstance(value, dict):
            yield value, (RULES, False)
        else:
            yield value, (REST, False)


def _certificates(part: object) -> Iterator[str]:
    stack = [part]
    while stack:
        current = stack.pop()
        if isinstance(current, dict):
            for key, value in current.items():
                if isinstance(value, str) and key.lower() in _FILE_KEYS:
                    yield value
                elif key not in ("clients", "users"):
                    stack.append(value)
        elif isinstance(current, list):
            stack.extend(current)
