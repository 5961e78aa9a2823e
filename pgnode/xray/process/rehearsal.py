"""A config with which a whole core comes up beside the one that runs, and serves nobody. Pure.

What the core refuses only when it starts (Hysteria without TLS, a certificate that cannot be used …) is found by starting it.
So everything is there as the config has it, but for where it listens: addresses of loopback that nobody knows, with the ports
of the config, and abstract unix sockets. What would act on the world is left out: network devices, reverse bridges, probes.
"""

from __future__ import annotations

import secrets
from typing import Any, Final

from pgnode.xray.config.inbounds import read_ports
from pgnode.xray.config.listeners import metrics_listener
from pgnode.xray.process.unbindable import is_address, sets_up_device

#: Dials out by itself, wherever it stands in an outbound.
_REVERSE: Final = "reverse"
_OBSERVATORIES: Final = ("observatory", "burstObservatory")


def rehearsal(document: dict[str, Any]) -> dict[str, Any]:
    """Make a copy of the config that a core can come up with beside the one that runs.

    Args:
        document: The core's config, or some parts of it.

    Returns:
        The copy; two of them do not meet.
    """
    name = secrets.token_hex(8)
    # 127.0.0.0/8 is this machine's as a whole; the first parts of it are used by others.
    address = f"127.{secrets.randbelow(100) + 128}.{secrets.randbelow(250) + 2}"
    result = dict(document)
    result["log"] = log_without_files(document.get("log"))
    result["inbounds"] = [
        _inbound(inbound, f"@pgnode-{name}-{number}", f"{address}.{number % 250 + 2}")
        for number, inbound in enumerate(document.get("inbounds") or ())
        if not sets_up_device(inbound)
    ]
    if isinstance(document.get("outbounds"), list):
        result["outbounds"] = [_outbound(outbound) for outbound in document["outbounds"]]
    for section in _OBSERVATORIES:
        if isinstance(document.get(section), dict):
            result[section] = _observing_nothing(document[section])
    if isinstance(document.get("metrics"), dict):
        result["metrics"] = _metrics(document["metrics"], f"{address}.1")
    if isinstance(document.get("api"), dict):
        result["api"] = {**document["api"], "listen": f"@pgnode-{name}-api"}
    return result


def leaves_out_parts(document: dict[str, Any]) -> bool:
    """Whether a core that comes up with :func:`rehearsal` has not seen all inbounds and outbounds of the config."""
    outbounds = document.get("outbounds")
    return any(sets_up_device(inbound) for inbound in document.get("inbounds") or ()) or (
        isinstance(outbounds, list) and any(isinstance(outbound, dict) and _dials(outbound) for outbound in outbounds)
    )


def log_without_files(log: object) -> dict[str, Any]:
    """Return a config's log with no files, and with the line that says that the core has started."""
    kept = log if isinstance(log, dict) else {}
    return {**kept, "access": "none", "error": "", "loglevel": "warning"}


def _observing_nothing(observatory: dict[str, Any]) -> dict[str, Any]:
    selectors = observatory.get("subjectSelector")
    if selectors is not None and not (isinstance(selectors, list) and all(isinstance(one, str) for one in selectors)):
        # The core will refuse it, and shall do so here.
        return observatory
    return {**observatory, "subjectSelector": []}


def _inbound(inbound: Any, name: str, address: str) -> Any:
    if not isinstance(inbound, dict):
        return inbound
    listen = inbound.get("listen")
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return {**{key: value for key, value in inbound.items() if key != "port"}, "listen": name}
    if listen is not None and not is_address(listen):
        return inbound
    moved = {**inbound, "listen": address}
    ports = read_ports(inbound.get("port"))
    if ports:
        # A range is one socket for each port.
        moved["port"] = ports[0][0]
    return moved


def _outbound(outbound: Any) -> Any:
    if not isinstance(outbound, dict) or not _dials(outbound):
        return outbound
    return {key: value for key, value in outbound.items() if key == "tag"} | {"protocol": "blackhole"}


def _dials(value: object) -> bool:
    if isinstance(value, dict):
        return any(key.lower() == _REVERSE or _dials(item) for key, item in value.items())
    return isinstance(value, list) and any(map(_dials, value))


def _metrics(metrics: dict[str, Any], address: str) -> dict[str, Any]:
    listener = metrics_listener(metrics)
    kept = {key: value for key, value in metrics.items() if key != "listen"}
    return kept if listener is None else {**kept, "listen": f"{address}:{listener.port}"}
