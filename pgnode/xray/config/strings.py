"""Every text of a config, with the place where it stands. Pure, but for links that are followed where a caller asks for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.numbering import list_at

#: An escape in JSON that may be half of a surrogate pair, or a NUL.
_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

#: A place in one of the lists whose items have a number or a name of their own.
_ENTRY = re.compile(r"(?s)(inbounds|outbounds|routing\.rules|routing\.balancers)\[(\d+)\]\.(.+)")

#: Ways to the root directory: "/proc/self/cwd" is the core's own working directory.
_TO_ROOT: Final = (("proc",), ("self", "thread-self"), ("cwd", "root"))

#: Lists whose items are known by their tags.
_BY_TAG: Final = ("inbounds", "outbounds")

#: Sections that the node writes itself.
_OWN: Final = ("api",)


def text_fault(source: str, document: dict[str, Any]) -> str | None:
    """Say where a config holds a text that is none, or None: half a surrogate pair, or a log path with a NUL.

    Such a value ends whoever encodes it, be it a log line.

    Args:
        source: The config as it came.
        document: The config, parsed.

    Returns:
        A sentence that begins with the place.
    """
    if _SUSPECT.search(source) is None and _NO_TEXT.search(source) is None:
        return None
    for place, text in strings(document):
        found = _NO_TEXT.search(text)
        # A NUL is a text's end only in paths, and the node opens none but these.
        if found is not None and (found[0] != "\0" or place.startswith("log.")):
            what = "a NUL character" if found[0] == "\0" else "half a surrogate pair, which is no text"
            return f"{named(document, place, {})} holds {what}"
    return None


def zero_fault(document: dict[str, Any], numbers: Mapping[str, Sequence[int]] = MappingProxyType({})) -> str | None:
    """Say where a config holds a NUL, or None: no file has such a path, and whoever looks for one fails over it.

    Args:
        document: The config.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence that begins with the place.
    """
    for place, text in strings(document):
        if "\0" in text:
            return f"{named(document, place, numbers)} holds a NUL character"
    return None


def own_socket_fault(
    document: dict[str, Any],
    folder: Path,
    resolve: Callable[[str], str] = os.path.realpath,
    *,
    numbers: Mapping[str, Sequence[int]] = MappingProxyType({}),
) -> str | None:
    """Say where a config names a path in the node's own folder of sockets, or shows its files, or None.

    A fallback, a redirect or any other destination there would lead users to the store or to the core's own API.

    Args:
        document: The config.
        folder: The folder; the one above it is the node's, too.
        resolve: Follows links in a path.
        numbers: By list the place of each item in the panel's own.

    Returns:
        A sentence that begins with the place.
    """
    real = resolve(str(folder))
    state = str(Path(real).parent)
    for place, text in strings({key: value for key, value in document.items() if key not in _OWN}):
        if place.lower().endswith("masquerade.dir"):
            # Whatever is in it is shown to everybody: the node's key is not. Cores work in "/".
            for shown in {resolve(f"/{text}"), resolve(by_the_core(f"/{text}"))}:
                if _is_in(shown, state) or _is_in(state, shown) or shown == "/":
                    return (
                        f"{named(document, place, numbers)} {short(text)} would show the node's own files to everybody"
                    )
        if "/" not in text:
            continue
        # "unix:/path", "/path,0666", "/path:1": whatever stands around it.
        path = text[text.index("/") :]
        ends = (path, re.split("[,:@]", path)[0])
        for candidate in {*ends, *map(by_the_core, ends)}:
            if _is_in(resolve(candidate), real) or _is_in(os.path.normpath(candidate), str(folder)):
                where = f"{named(document, place, numbers)} {short(text)}"
                return f"{where} is in the node's own folder of sockets, which is not for users"
    return None


def by_the_core(path: str) -> str:
    """Return a path as a core takes it that leads through what the kernel shows of a process: that core, which works in "/"."""
    if "proc" not in path:
        return path
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
        if len(parts) == len(_TO_ROOT) and all(found in wanted for found, wanted in zip(parts, _TO_ROOT, strict=True)):
            parts.clear()
    return "/" + "/".join(parts)


def strings(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield every text of a config, keys included, with its place: ``outbounds[0].tag``."""
    # An explicit stack: how deep a config is nested is up to who sent it.
    stack: list[tuple[str, Any]] = [("", document)]
    while stack:
        place, value = stack.pop()
        if isinstance(value, str):
            yield place, value
        elif isinstance(value, dict):
            for key in value:
                yield f"a key in {place or 'it'}", key
            stack.extend((f"{place}.{_key(key)}".lstrip("."), item) for key, item in reversed(value.items()))
        elif isinstance(value, list):
            stack.extend((f"{place}[{index}]", item) for index, item in reversed(list(enumerate(value))))


def _key(key: str) -> str:
    """Return a key as a place has it."""
    return short(key)[1:-1] if key else "''"


def named(document: dict[str, Any], place: str, numbers: Mapping[str, Sequence[int]]) -> str:
    """Name a place as an operator would.

    Args:
        document: The config.
        place: The place, as :func:`strings` has it.
        numbers: By list the place of each item in the panel's own; without them items are counted as they stand.

    Returns:
        The place; an inbound or outbound by its tag, where it has one that can be shown, and other items by the panel's count.
    """
    found = _ENTRY.match(place)
    if found is None:
        return f"config: {place}"
    section, index, rest = found[1], int(found[2]), found[3]
    entries = list_at(document, section)
    # A key may look like a place, too.
    entry = entries[index] if index < len(entries) else None
    tag = entry.get("tag") if isinstance(entry, dict) and section in _BY_TAG else None
    if isinstance(tag, str) and tag and _NO_TEXT.search(tag) is None:
        return f"{section[:-1]} {short(tag)}: {rest}"
    counted = numbers.get(section, ())
    return f"config: {section}[{(counted[index] - 1) if index < len(counted) and counted[index] else index}].{rest}"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
