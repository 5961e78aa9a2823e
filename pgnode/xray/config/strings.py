"""Every text of a config, with the place where it stands. Pure, but for links that are followed where a caller asks for it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.inbounds import short

#: An escape in JSON that may be half of a surrogate pair, or a NUL.
_SUSPECT = re.compile(r"\\u(?:[dD][89a-fA-F]|0000)")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")

_ENTRY = re.compile(r"(inbounds|outbounds)\[(\d+)\]\.(.+)")

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
            return f"{_named(document, place)} holds {what}"
    return None


def own_socket_fault(
    document: dict[str, Any], folder: Path, resolve: Callable[[str], str] = os.path.realpath
) -> str | None:
    """Say where a config names a path in the node's own folder of sockets, or shows its files, or None.

    A fallback, a redirect or any other destination there would lead users to the store or to the core's own API.

    Args:
        document: The config.
        folder: The folder; the one above it is the node's, too.
        resolve: Follows links in a path.

    Returns:
        A sentence that begins with the place.
    """
    real = resolve(str(folder))
    state = str(Path(real).parent)
    for place, text in strings({key: value for key, value in document.items() if key not in _OWN}):
        if "/" not in text:
            continue
        if place.lower().endswith("masquerade.dir"):
            # Whatever is in it is shown to everybody: the node's key is not.
            shown = resolve(text)
            if _is_in(shown, state) or _is_in(state, shown) or shown == "/":
                return f"{_named(document, place)} {short(text)} would show the node's own files to everybody"
        # "unix:/path", "/path,0666", "/path:1": whatever stands around it.
        path = text[text.index("/") :]
        for candidate in {path, re.split("[,:@]", path)[0]}:
            if _is_in(resolve(candidate), real) or _is_in(os.path.normpath(candidate), str(folder)):
                return f"{_named(document, place)} {short(text)} is in the node's own folder of sockets, which is not for users"
    return None


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


def _named(document: dict[str, Any], place: str) -> str:
    """Name a place as an operator would: an inbound or outbound by its tag, where it has one that can be shown."""
    found = _ENTRY.match(place)
    if found is None:
        return f"config: {place}"
    entries = document.get(found[1])
    # A key may look like a place, too.
    entry = entries[int(found[2])] if isinstance(entries, list) and int(found[2]) < len(entries) else None
    tag = entry.get("tag") if isinstance(entry, dict) else None
    if not isinstance(tag, str) or not tag or _NO_TEXT.search(tag) is not None:
        return f"config: {place}"
    return f"{found[1][:-1]} {short(tag)}: {found[3]}"


def _is_in(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")
