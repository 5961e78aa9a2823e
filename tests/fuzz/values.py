"""Odd texts, numbers and JSON, and how they get into what is well-formed. Pure: all chance comes from the caller."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

Json: TypeAlias = Any

#: Texts that have broken programs, and some that mean something to the node. None is what logs are searched for.
TEXTS: tuple[str, ...] = (
    "",
    " ",
    "a",
    "a" * 256,
    "a" * 257,
    "é" * 200,
    "😀" * 50,
    "a" * 70_000,
    "\0",
    "a\0b",
    "a\nb",
    "a\r\nx: y",
    "\x7f",
    "\x85",
    "\u2028",
    "\u202eabc",
    "\ufeff",
    "\ufffe",
    "\x1b[31m",
    "a>>>b",
    "user0@demo",
    "USER0@DEMO",
    "İ@demo",
    "ß@demo",
    "\uff35\uff33\uff25\uff32@demo",
    "a@b,c@d",
    "a b",
    "../../../etc/passwd",
    "/dev/full",
    "%s%n%x",
    "{}",
    "null",
    "-1",
    "1e999",
    "0x7f",
    "65536",
    "443-80",
    "1-70000",
    "geoip:private",
    "geoip:zz",
    "geosite:cn",
    "ext:geoip.dat:x",
    "regexp:(",
    "regexp:(a+)+$",
    "full:",
    "domain:",
    "keyword:",
    "dotless:",
    "127.0.0.1",
    "::1",
    "fe80::1%lo",
    "10.0.0.0/33",
    "!10.0.0.0/8",
    "1.2.3.4/",
    "@abstract",
    "env:HOME",
    "VLESS",
    "Trojan",
    "DIRECT",
    "BLOCK",
    "API",
    "exits",
    "exit-1",
)

NUMBERS: tuple[int | float, ...] = (
    0,
    -1,
    1,
    0.5,
    -0.0,
    255,
    256,
    65_535,
    65_536,
    70_000,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    1 << 53,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
    1 << 64,
    10**40,
    -(1 << 63),
    -(1 << 63) - 1,
    1e308,
    float("inf"),
    float("nan"),
)

#: Depths of nesting: within the limits of readers, at their edge, and beyond.
DEPTHS = (3, 30, 64, 101, 300, 1_000, 5_000)


def text(rng: Random) -> str:
    """Return a text that is odd, or a mixture of odd ones."""
    if rng.random() < 0.8:
        return rng.choice(TEXTS)
    return "".join(rng.choice(TEXTS)[:20] for _ in range(rng.randrange(2, 4)))


def surrogate(rng: Random) -> str:
    """Return a text that is none: one with half a character, as JSON can write it and UTF-8 cannot."""
    return rng.choice(("\ud800", "a\udfffb", "\udc00\ud800"))


def nested(depth: int, *, as_list: bool) -> Json:
    """Return something nested so deeply."""
    value: Json = None
    for _ in range(depth):
        value = [value] if as_list else {"a": value}
    return value


def anything(rng: Random) -> Json:
    """Return any JSON value."""
    kinds: Sequence[Callable[[], Json]] = (
        lambda: text(rng),
        lambda: text(rng),
        lambda: surrogate(rng),
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice(NUMBERS),
        lambda: rng.choice((True, False, None)),
        lambda: rng.choice(([], {}, [[]], [{}], [None], {"": None}, ["", ""])),
        lambda: [anything(rng) for _ in range(rng.randrange(1, 4))],
        lambda: {text(rng)[:20]: anything(rng)},
        lambda: nested(rng.choice(DEPTHS[:4]), as_list=rng.random() < 0.5),
    )
    return rng.choice(kinds)()


def places(value: Json) -> list[tuple[Json, Any]]:
    """Return every place in a JSON value, as its container and the key or index."""
    found: list[tuple[Json, Any]] = []
    waiting = [value]
    while waiting:
        node = waiting.pop()
        keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
        for key in keys:
            found.append((node, key))
            waiting.append(node[key])
    return found


def place(rng: Random, root: Json) -> tuple[Json, Any]:
    """Return a place by a walk down, which ends anywhere: a long list of lines is no more likely than a short part beside it."""
    container, key = root, ""
    while True:
        below = container[key]
        keys: Sequence[Any] = (
            list(below) if isinstance(below, dict) else range(len(below)) if isinstance(below, list) else ()
        )
        if not keys or rng.random() < 0.2:
            return container, key
        container, key = below, rng.choice(keys)


def mutate(rng: Random, value: Json, changes: int) -> Json:
    """Return ``value`` with so many changes: other values and types, parts that are missing, twice or elsewhere."""
    root = {"": copy.deepcopy(value)}
    for _ in range(changes):
        container, key = place(rng, root)
        match rng.randrange(9):
            case 0 | 1:
                container[key] = anything(rng)
            case 2:
                container[key] = text(rng)
            case 3:
                container[key] = rng.choice(NUMBERS)
            case 4 if container is not root:
                del container[key]
            case 5 if isinstance(container, list):
                container.append(copy.deepcopy(container[key]))
            case 6:
                other, name = place(rng, root)
                container[key] = copy.deepcopy(other[name]) if other is not root else text(rng)
            case 7 if isinstance(container[key], dict):
                container[key][text(rng)[:40]] = anything(rng)
            case _:
                container[key] = [container[key]] if rng.random() < 0.5 else {"": container[key]}
    return root.get("")


def dumps(value: Json) -> bytes:
    """Return JSON, surrogates escaped; NaN and infinity as JavaScript writes them. Deep nesting is no trouble."""
    try:
        return json.dumps(value).encode()
    except RecursionError:
        return b"[" * 3000 + b"]" * 3000


def spoil_json(rng: Random, data: bytes) -> bytes:
    """Return what is no JSON any more, or JSON in an odd form."""
    depth = rng.choice(DEPTHS)
    at = rng.randrange(len(data) + 1)
    forms: Sequence[Callable[[], bytes]] = (
        lambda: data[:at],
        lambda: data + data,
        lambda: b"\xef\xbb\xbf" + data,
        lambda: data.decode().encode("utf-16"),
        lambda: data[:at] + b"\xff\xc0\x80" + data[at:],
        lambda: data[:at] + b"\0" + data[at:],
        lambda: b"[" * depth + data + b"]" * depth,
        lambda: b'{"a":' * depth + data + b"}" * depth,
        lambda: b"[" * depth,
        lambda: data[:-1] + b"," + data[1:] if data[:1] == b"{" and len(data) > 2 else b"{,}",
        lambda: data.replace(b'"', b"'"),
        lambda: b"/* comment */" + data,
        lambda: data.replace(b":", b": 9" * 40, 1),
        lambda: b"9" * 5000,
        lambda: b'"' + b"\\u0000" * 10 + b'"',
        lambda: b"",
        lambda: b" \n\t" * 50 + data,
    )
    return rng.choice(forms)()


def spoil_bytes(rng: Random, data: bytes) -> bytes:
    """Return bytes with a few flipped, cut out, put in or doubled."""
    changed = bytearray(data)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(5):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at : at + rng.randrange(1, 8)]
            case 2:
                changed[at:at] = rng.randbytes(rng.randrange(1, 8))
            case 3:
                changed[at:at] = changed[at : at + rng.randrange(1, 30)]
            case _:
                changed[at:at] = rng.choice((b"\0", b"\xff", b"\r\n", b"\n", b" ", b"\xc3\x28", b"\x80"))
    return bytes(changed)
