"""Which part of a config does the core refuse?

The embedded core refuses a whole config with exit code 23 and not a word of why. So parts of it are put to the core, a few
of them, until one is left to name. Configs built for that never serve: their addresses cannot be bound, so a core that
takes the config ends at once (exit code 255), and the running core is not disturbed.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from json import dumps
from pathlib import Path
from typing import Any, Final

from pgnode.xray.config.inbounds import read_ports

#: Answers whether the core accepts a config (JSON); everything but "refused" counts as accepted.
Check = Callable[[str], Awaitable[bool]]

#: A check starts a core and takes about 70 ms.
MAX_CHECKS: Final = 40

#: An address for documentation (RFC 5737) that no machine has, and a path that cannot exist.
_NO_ADDRESS: Final = "192.0.2.1"
_NO_PATH: Final = "/dev/null/x"
#: Some transports (gRPC) do not report that they could not listen; this inbound does, and so every such core ends.
_STOPPER: Final = {
    "listen": _NO_ADDRESS,
    "port": 9,
    "protocol": "dokodemo-door",
    "settings": {"address": "127.0.0.1", "port": 9},
}

_INBOUND_PROTOCOLS: Final = frozenset(
    [
        "tunnel",
        "dokodemo-door",
        "http",
        "shadowsocks",
        "mixed",
        "socks",
        "vless",
        "vmess",
        "trojan",
        "wireguard",
        "hysteria",
        "tun",
    ]
)
_OUTBOUND_PROTOCOLS: Final = frozenset(
    [
        "block",
        "blackhole",
        "loopback",
        "direct",
        "freedom",
        "http",
        "shadowsocks",
        "socks",
        "vless",
        "vmess",
        "trojan",
        "hysteria",
        "dns",
        "wireguard",
    ]
)
_TRANSPORTS: Final = frozenset(
    ["raw", "tcp", "xhttp", "splithttp", "kcp", "mkcp", "grpc", "ws", "websocket", "httpupgrade", "hysteria"]
)

#: Sections in an order in which each only needs those before it; unknown ones come last.
_FIRST_SECTIONS: Final = ("log", "stats", "policy", "fakedns", "fakeDns", "dns", "geodata", "version", "transport")
_OBSERVERS: Final = ("observatory", "burstObservatory")
#: The node's own, and "metrics", which would listen.
_LEFT_OUT: Final = frozenset({"api"})

#: The least settings with which the core takes an inbound of the protocol.
_LEAST_SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "vless": {"decryption": "none"},
    "shadowsocks": {"clients": []},
    "hysteria": {"version": 2},
}

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


@dataclass(frozen=True, slots=True)
class _Part:
    """One piece of a config: an entry of a list (``section`` dotted: "routing.rules") or a whole section (index -1)."""

    section: str
    index: int
    value: Any

    @property
    def name(self) -> str:
        if self.index < 0:
            return self.section
        label = {"inbounds": "inbound", "outbounds": "outbound", "routing.rules": "routing rule"}.get(
            self.section, "balancer"
        )
        value = self.value if isinstance(self.value, dict) else {}
        tag = value.get("tag") or value.get("ruleTag")
        title = f"{label} {_short(tag)}" if isinstance(tag, str) and tag else f"{label} #{self.index + 1}"
        protocol = value.get("protocol")
        return f"{title} ({protocol})" if isinstance(protocol, str) and len(protocol) < 20 else title


class _OutOfBudgetError(Exception):
    """No more checks, or no more time."""


class _Tries:
    """Counts checks and keeps the deadline."""

    def __init__(self, check: Check, deadline: float) -> None:
        self._check = check
        self._deadline = deadline
        self._left = MAX_CHECKS

    async def refused(self, parts: Iterable[_Part]) -> bool:
        if self._left <= 0:
            raise _OutOfBudgetError
        self._left -= 1
        try:
            async with asyncio.timeout_at(self._deadline):
                return not await self._check(dumps(unbindable(_assemble(parts))))
        except TimeoutError:
            raise _OutOfBudgetError from None


async def find_refused_part(document: dict[str, Any], check: Check, deadline: float) -> str:
    """One sentence that names the part of ``document`` that the core refuses, as closely as the budget allows.

    ``check`` is asked at most :data:`MAX_CHECKS` times, one after another; ``deadline`` is a time of the event loop's
    clock, in seconds. Never raises for what is in the config; errors of ``check`` come through.
    """
    tries = _Tries(check, deadline)
    parts = _parts_of(document)
    try:
        first = await _first_refused(parts, lambda count: tries.refused(parts[:count]))
    except _OutOfBudgetError:
        fault = next(filter(None, (_known_fault(part, parts[:i]) for i, part in enumerate(parts))), None)
        return fault or "the core refuses the config; there was no time to find out which part of it"
    if first is None:
        fault = next(filter(None, (_known_fault(part, parts[:i]) for i, part in enumerate(parts))), None)
        return fault or "the core refuses the config as a whole, but takes all parts of it"
    culprit = parts[first]
    fault = _known_fault(culprit, parts[:first])
    if fault is not None:
        return fault
    path = await _narrow(tries, parts[:first], culprit)
    if not path:
        return f"{culprit.name} is refused by the core"
    return f"{culprit.name}: {_dotted(path)}{_value_at(culprit.value, path)} is refused by the core"


def unbindable(document: dict[str, Any]) -> dict[str, Any]:
    """A copy of the config with which no core can serve: inbounds at addresses that do not exist, no API, no metrics port.

    What makes the core refuse a config is kept, an address it does not understand included.
    """
    inbounds = [_unbindable_inbound(inbound) for inbound in document.get("inbounds") or ()]
    result = {key: value for key, value in document.items() if key not in _LEFT_OUT}
    # A tun inbound would set up a network device before anything fails.
    result["inbounds"] = [item for item in inbounds if not (isinstance(item, dict) and item.get("protocol") == "tun")]
    result["inbounds"].append(_STOPPER)
    metrics = result.get("metrics")
    if isinstance(metrics, dict):
        result["metrics"] = {key: value for key, value in metrics.items() if key.lower() != "listen"}
    return result


def _known_fault(part: _Part, before: Sequence[_Part]) -> str | None:
    """A better text for faults that can be seen without the core, or None."""
    value = part.value
    if part.index < 0 or not isinstance(value, dict):
        return None
    label = "ruleTag" if part.section == "routing.rules" else "tag"
    tag = value.get(label)
    if tag and any(
        other.section == part.section and isinstance(other.value, dict) and other.value.get(label) == tag
        for other in before
    ):
        plural = {"routing.rules": "routing rules", "routing.balancers": "balancers"}.get(part.section, part.section)
        return f"two {plural} have the {label} {_short(tag)}"
    if part.section == "routing.rules" and not value.get("outboundTag") and not value.get("balancerTag"):
        return f"{part.name} has neither outboundTag nor balancerTag"
    if part.section in {"inbounds", "outbounds"}:
        return _known_endpoint_fault(part, value)
    return None


def _known_endpoint_fault(part: _Part, value: dict[str, Any]) -> str | None:
    is_inbound = part.section == "inbounds"
    name = part.name
    protocol = value.get("protocol")
    known = _INBOUND_PROTOCOLS if is_inbound else _OUTBOUND_PROTOCOLS
    if not isinstance(protocol, str) or protocol.lower() not in known:
        return f"{name}: protocol {_short(protocol)} is not one the core knows"
    if is_inbound:
        fault = _address_fault(value)
        if fault is not None:
            return f"{name}: {fault}"
    stream = value.get("streamSettings")
    if not isinstance(stream, dict):
        return None
    transport = stream.get("network") or stream.get("method") or "raw"
    if not isinstance(transport, str) or transport.lower() not in _TRANSPORTS:
        return f"{name}: transport {_short(transport)} is not one the core knows"
    tls = stream.get("tlsSettings")
    certificates = tls.get("certificates") if isinstance(tls, dict) else None
    for certificate in certificates if isinstance(certificates, list) else ():
        for field in ("certificateFile", "keyFile"):
            path = certificate.get(field) if isinstance(certificate, dict) else None
            if isinstance(path, str) and path and not Path(path).is_file():
                return f"{name}: {field} {_short(path)} does not exist"
    return None


def _address_fault(inbound: dict[str, Any]) -> str | None:
    listen, port, protocol = inbound.get("listen"), inbound.get("port"), str(inbound.get("protocol")).lower()
    if protocol == "tun":
        return None
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return None
    if listen is not None and not _is_address(listen):
        return f"listen {_short(listen)} is no IP address and no path"
    if port is None:
        return "port is missing"
    if isinstance(port, str) and "env:" in port:
        return None
    if not read_ports(port):
        return f"port {_short(port)} is not valid"
    return None


def _is_address(listen: object) -> bool:
    if not isinstance(listen, str):
        return False
    if listen in {"", "localhost"} or listen.startswith("env:"):
        return True
    try:
        ipaddress.ip_address(listen.strip("[]"))
    except ValueError:
        return False
    return True


def _unbindable_inbound(inbound: Any) -> Any:
    if not isinstance(inbound, dict):
        return inbound
    listen = inbound.get("listen")
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return {**inbound, "listen": _NO_PATH}
    if listen is None or _is_address(listen):
        return {**inbound, "listen": _NO_ADDRESS}
    return inbound


def _parts_of(document: dict[str, Any]) -> list[_Part]:
    """The config in pieces, in an order in which every piece only needs earlier ones."""
    parts: list[_Part] = []

    def add_section(name: str) -> None:
        if name in document and name not in _LEFT_OUT:
            parts.append(_Part(name, -1, document[name]))

    def add_list(name: str, value: Any) -> None:
        if isinstance(value, list):
            parts.extend(_Part(name, index, item) for index, item in enumerate(value))
        elif value is not None:
            parts.append(_Part(name, -1, value))

    for name in _FIRST_SECTIONS:
        add_section(name)
    add_list("outbounds", document.get("outbounds"))
    for name in _OBSERVERS:
        add_section(name)
    add_list("inbounds", document.get("inbounds"))
    routing = document.get("routing")
    if isinstance(routing, dict):
        rest = {key: value for key, value in routing.items() if key not in {"rules", "balancers"}}
        if rest:
            parts.append(_Part("routing", -1, rest))
        add_list("routing.balancers", routing.get("balancers"))
        add_list("routing.rules", routing.get("rules"))
    else:
        add_section("routing")
    done = {*_FIRST_SECTIONS, *_OBSERVERS, "outbounds", "inbounds", "routing"}
    for name in document:
        if name not in done:
            add_section(name)
    return parts


def _assemble(parts: Iterable[_Part]) -> dict[str, Any]:
    """A config of these pieces alone."""
    document: dict[str, Any] = {}
    for part in parts:
        *parents, name = part.section.split(".")
        target = document
        for parent in parents:
            target = target.setdefault(parent, {})
        if part.index >= 0:
            target.setdefault(name, []).append(part.value)
        else:
            target[name] = dict(part.value) if isinstance(part.value, dict) else part.value
    return document


async def _first_refused(parts: Sequence[Any], refused: Callable[[int], Awaitable[bool]]) -> int | None:
    """Index of the part whose addition makes the core refuse; ``refused(n)`` asks for the first n. None: never refused."""
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


async def _narrow(tries: _Tries, before: Sequence[_Part], culprit: _Part) -> list[str | int]:
    """The path inside ``culprit`` to what the core refuses, as deep as it can be told; empty when it cannot."""
    path: list[str | int] = []

    async def refused_with(path: list[str | int], replacement: Any) -> bool:
        part = _Part(culprit.section, culprit.index, _replaced(culprit.value, path, replacement))
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
                        without[key] = _LEAST_SETTINGS.get(str(current.get("protocol")).lower(), {})
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


def _at(value: Any, path: Iterable[str | int]) -> Any:
    for step in path:
        value = value[step]
    return value


def _replaced(value: Any, path: Sequence[str | int], replacement: Any) -> Any:
    """A copy of ``value`` with ``replacement`` at ``path``; what is beside the path is shared."""
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
    """The refused value itself where it says something and cannot be a secret."""
    found = _at(value, path)
    if isinstance(found, dict | list):
        return ""
    if _SECRET_FIELDS & set(path[:-1]) and path[-1] not in _HARMLESS_FIELDS:
        return ""
    return f" {_short(found)}"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 48 else text[:45] + "…" + text[0]
