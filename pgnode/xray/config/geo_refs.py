"""Geo data in a core config: the private networks as plain lists, and which geo files a config needs.

A geo reference is a string such as ``geoip:cn``, ``geosite:ads``, ``ext:file.dat:code`` (also ``ext-ip:``, ``ext-site:``,
``ext-domain:``), with ``!`` in front for "everything but" (Xray docs, routing and DNS). The core refuses a whole config when
the file behind one of them is missing, without saying which; here it is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from pgnode.wire.texts import shown

#: What ``geoip:private`` stands for, so that a node without geo files runs the usual config.
PRIVATE_NETWORKS: Final[tuple[str, ...]] = (
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)

#: Where the core looks when a file is not in its assets folder (xray-core ``common/platform/others.go``).
SYSTEM_ASSET_DIRS: Final[tuple[Path, ...]] = (
    Path("/usr/local/share/xray"),
    Path("/usr/share/xray"),
    Path("/opt/share/xray"),
)

#: Fields of a routing rule that hold addresses; ``sourceIP`` is the core's newer name of ``source``.
_RULE_ADDRESS_FIELDS: Final = ("ip", "source", "sourceIP", "localIP")

#: Parts of a config in which the core resolves geo references; elsewhere such a string is just a name.
_GEO_SECTIONS: Final = ("routing", "dns", "fakedns", "fakeDns", "inbounds", "outbounds")

_EXTERNAL_PREFIXES: Final = ("ext:", "ext-ip:", "ext-domain:", "ext-site:")


def replace_private(rule: dict[str, Any]) -> None:
    """Put :data:`PRIVATE_NETWORKS` in the place of ``geoip:private`` in the address fields of one routing rule.

    ``!geoip:private`` (everything but private) cannot be written as networks in place and stays: it needs geoip.dat.
    """
    for field in _RULE_ADDRESS_FIELDS:
        value = rule.get(field)
        items = value.split(",") if isinstance(value, str) else value
        if not isinstance(items, list) or not any(_is_private(item) for item in items):
            continue
        replaced: list[Any] = []
        for item in items:
            replaced.extend(PRIVATE_NETWORKS if _is_private(item) else (item,))
        rule[field] = replaced


def missing_geo_files(document: dict[str, Any], assets_dir: Path | None) -> str | None:
    """Return a sentence about the first geo file that ``document`` needs and that is not there, or None.

    ``assets_dir`` is the folder the core is told to use (setting XRAY_ASSETS_PATH); the system's folders come after it,
    as in the core.
    """
    folders = ([assets_dir] if assets_dir is not None else []) + list(SYSTEM_ASSET_DIRS)
    known: set[str] = set()
    for reference in _references(document):
        file_name = _file_of(reference)
        if file_name is None or file_name in known:
            continue
        known.add(file_name)
        if not any((folder / file_name).is_file() for folder in folders):
            searched = ", ".join(str(folder) for folder in folders)
            return (
                f"geo file {shown(file_name)} is missing ({shown(reference)} needs it); looked in {searched}; "
                "set XRAY_ASSETS_PATH to the folder that holds it"
            )
    return None


def uses_files(document: dict[str, Any]) -> bool:
    """Whether the core reads geoip.dat or geosite.dat for this config."""
    return any(_file_of(reference) in ("geoip.dat", "geosite.dat") for reference in _references(document))


def geo_file_names(part: object) -> set[str]:
    """Name the geo files that the core reads for a part of a config."""
    names = (_file_of(piece.strip()) for text in _strings(part) for piece in text.split(","))
    return {name for name in names if name is not None}


def _is_private(item: object) -> bool:
    # The code behind the prefix is not case-sensitive in the core, the prefix is.
    return isinstance(item, str) and item.strip().startswith("geoip:") and item.strip().lower() == "geoip:private"


def _file_of(reference: str) -> str | None:
    bare = reference.removeprefix("!")
    if bare.startswith("geoip:"):
        return "geoip.dat"
    if bare.startswith("geosite:"):
        return "geosite.dat"
    for prefix in _EXTERNAL_PREFIXES:
        if bare.startswith(prefix):
            name, separator, _code = bare.removeprefix(prefix).partition(":")
            return name if separator and name else None
    return None


def _references(document: dict[str, Any]) -> Iterator[str]:
    """Every geo reference of the config, in its order."""
    for section in _GEO_SECTIONS:
        for text in _strings(document.get(section)):
            for part in text.split(","):
                candidate = part.strip()
                if _file_of(candidate) is not None:
                    yield candidate


def _strings(part: object) -> Iterator[str]:
    # An explicit stack: how deep a config is nested is up to who sent it.
    stack = [part]
    while stack:
        current = stack.pop()
        if isinstance(current, str):
            yield current
        elif isinstance(current, dict):
            # Keys too: DNS hosts are written {"geosite:cn": "address"}. Clients hold no geo data and may be many.
            pairs = [(key, value) for key, value in current.items() if key not in {"clients", "users"}]
            stack.extend(item for pair in reversed(pairs) for item in reversed(pair))
        elif isinstance(current, list):
            stack.extend(reversed(current))
