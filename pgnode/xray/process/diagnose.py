"""Which part of a config does the core refuse?

The embedded core refuses a whole config with exit code 23 and not a word of why. So parts of it are put to the core, a few
of them, until one is left to name. Configs built for that never serve: their addresses cannot be bound, so a core that
takes the config ends at once (exit code 255), and the running core is not disturbed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from json import dumps
from typing import Any, Final

from pgnode.xray.config.inbounds import short
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS
from pgnode.xray.process.config_parts import Part, assemble, parts_of
from pgnode.xray.process.known_faults import known_fault
from pgnode.xray.process.unbindable import unbindable

#: Answers whether the core accepts a config (JSON); everything but "refused" counts as accepted.
Check = Callable[[str], Awaitable[bool]]

#: Makes of some parts a config that can be put to the core.
Prepare = Callable[[dict[str, Any]], dict[str, Any]]

#: A check starts a core and takes about 70 ms.
MAX_CHECKS: Final = 40

#: Below these, values may be secrets and are not shown.
_SECRET_FIELDS: Final = frozenset({"settings", "streamSettings", "tlsSettings", "realitySettings"})


#: What may be shown also out of these.
_HARMLESS_FIELDS: Final = frozenset(
    {
        "domainStrategy",
        "network",
        "security",
        "flow",
        "method",
        "decryption",
        "encryption",
        "fingerprint",
        "port",
        "level",
    }
)


class _OutOfBudgetError(Exception):
    """No more checks, or no more time."""


class _Tries:
    """Counts checks and keeps the deadline."""

    def __init__(self, check: Check, deadline: float, prepare: Prepare) -> None:
        self._check = check
        self._deadline = deadline
        self._prepare = prepare
        self._left = MAX_CHECKS

    async def refused(self, parts: Iterable[Part]) -> bool:
        if self._left <= 0:
            raise _OutOfBudgetError
        self._left -= 1
        try:
            async with asyncio.timeout_at(self._deadline):
                return not await self._check(dumps(self._prepare(assemble(parts))))
        except TimeoutError:
            raise _OutOfBudgetError from None


async def find_refused_part(
    document: dict[str, Any],
    check: Check,
    deadline: float,
    *,
    numbers: Mapping[str, Sequence[int]] | None = None,
    prepare: Prepare = unbindable,
) -> str:
    """Find the part of a config that the core refuses, as closely as the budget allows.

    Never raises for what is in the config; errors of ``check`` come through.

    Args:
        document: The config.
        check: Asked at most :data:`MAX_CHECKS` times, one after another.
        deadline: A time of the event loop's clock, in seconds.
        numbers: By section the place of each item in the panel's own list, for names of parts without a tag.
        prepare: Makes of some parts a config that can be put to the core.

    Returns:
        A sentence that begins with the part's name.
    """
    tries = _Tries(check, deadline, prepare)
    parts = parts_of(document, numbers)
    try:
        first = await _first_refused(parts, lambda count: tries.refused(parts[:count]))
    except _OutOfBudgetError:
        fault = next(filter(None, (known_fault(part, parts[:i]) for i, part in enumerate(parts))), None)
        return fault or "the core refuses the config; there was no time to find out which part of it"
    if first is None:
        fault = next(filter(None, (known_fault(part, parts[:i]) for i, part in enumerate(parts))), None)
        return fault or "the core refuses the config as a whole, but takes all parts of it"
    culprit = parts[first]
    fault = known_fault(culprit, parts[:first])
    if fault is not None:
        return fault
    path = await _narrow(tries, parts[:first], culprit)
    if not path:
        return f"{culprit.name} is refused by the core"
    return f"{culprit.name}: {_dotted(path)}{_value_at(culprit.value, path)} is refused by the core"


async def _first_refused(parts: Sequence[Any], refused: Callable[[int], Awaitable[bool]]) -> int | None:
    """Find the part whose addition makes the core refuse; ``refused(n)`` asks for the first n. None: never refused."""
    if not parts or not await refused(len(parts)):
        return None
    accepted, bad = 0, len(parts)
    while bad - accepted > 1:
        middle = (accepted + bad) // 2
        if await refused(middle):
            bad = middle
        else:
            accepted = middle
    return bad - 1


async def _narrow(tries: _Tries, before: Sequence[Part], culprit: Part) -> list[str | int]:
    """Find the path inside ``culprit`` to what the core refuses, as deep as it can be told; empty when it cannot."""
    path: list[str | int] = []

    async def refused_with(path: list[str | int], replacement: Any) -> bool:
        part = replace(culprit, value=_replaced(culprit.value, path, replacement))
        return await tries.refused([*before, part])

    try:
        while True:
            current = _at(culprit.value, path)
            if isinstance(current, list) and current:

                def with_first(
                    count: int, items: list[Any] = current, at: tuple[str | int, ...] = tuple(path)
                ) -> Awaitable[bool]:
                    return refused_with(list(at), items[:count])

                index = await _first_refused(current, with_first)
                if index is None:
                    return path
                path = [*path, index]
            elif isinstance(current, dict):
                # Containers first: without "security", say, nobody looks at the certificates either.
                for key in sorted(current, key=lambda name: not isinstance(current[name], dict | list)):
                    without = {name: value for name, value in current.items() if name != key}
                    if not path and key == "settings" and culprit.section == "inbounds":
                        without[key] = _least_settings(current.get("protocol"))
                    if not path and culprit.section == "routing.rules":
                        # A rule without any condition is refused as well.
                        without.setdefault("network", "tcp,udp")
                    if not await refused_with(path, without):
                        path = [*path, key]
                        break
                else:
                    return path
            else:
                return path
    except _OutOfBudgetError:
        return path


def _least_settings(protocol: object) -> Mapping[str, Any]:
    known = INBOUND_PROTOCOLS.get(str(protocol).lower())
    return known.least_settings if known is not None else {}


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _replaced(value: Any, path: Sequence[str | int], replacement: Any) -> Any:
    """Make a copy of ``value`` with ``replacement`` at ``path``; what is beside the path is shared."""
    if not path:
        return replacement
    step, rest = path[0], path[1:]
    if isinstance(step, int):
        # Items after the culprit are left out, as in the try that found it.
        return [*value[:step], _replaced(value[step], rest, replacement)]
    return {**value, step: _replaced(value[step], rest, replacement)}


def _dotted(path: Iterable[str | int]) -> str:
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}"
    return text.removeprefix(".")


def _value_at(value: Any, path: Sequence[str | int]) -> str:
    """Show the refused value itself where it says something and cannot be a secret."""
    found = _at(value, path)
    if isinstance(found, dict | list):
        return ""
    if _SECRET_FIELDS & set(path[:-1]) and path[-1] not in _HARMLESS_FIELDS:
        return ""
    return f" {short(found)}"
