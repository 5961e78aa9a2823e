"""A config with which no core can serve: what the core thinks of it can be tried beside a core that runs. Pure."""

from __future__ import annotations

import ipaddress
from typing import Any, Final

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

#: Protocols of inbounds that set up a network device.
_DEVICES: Final = frozenset({"tun"})

#: A name that no network device can have: its settings are read, and none is set up.
NO_DEVICE: Final = "pgnode/no-device"

#: Sections that are the node's own.
OWN_SECTIONS: Final = frozenset({"api"})


def unbindable(document: dict[str, Any]) -> dict[str, Any]:
    """Make a copy of the config with which no core can serve: inbounds at addresses that do not exist, no API, no metrics port.

    What makes the core refuse a config is kept, an address it does not understand included.
    """
    inbounds = [_unbindable_inbound(inbound) for inbound in document.get("inbounds") or ()]
    result = {key: value for key, value in document.items() if key not in OWN_SECTIONS}
    result["inbounds"] = [*inbounds, _STOPPER]
    metrics = result.get("metrics")
    if isinstance(metrics, dict):
        result["metrics"] = {key: value for key, value in metrics.items() if key.lower() != "listen"}
    return result


def _unbindable_inbound(inbound: Any) -> Any:
    if not isinstance(inbound, dict):
        return inbound
    if sets_up_device(inbound):
        return _without_device(inbound)
    listen = inbound.get("listen")
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return {**inbound, "listen": _NO_PATH}
    if listen is None or is_address(listen):
        return {**inbound, "listen": _NO_ADDRESS}
    return inbound


def sets_up_device(inbound: object) -> bool:
    """Whether an inbound sets up a network device when it starts."""
    return isinstance(inbound, dict) and str(inbound.get("protocol")).lower() in _DEVICES


def _without_device(inbound: dict[str, Any]) -> dict[str, Any]:
    settings = inbound.get("settings")
    if settings is None:
        return {**inbound, "settings": {"name": NO_DEVICE}}
    if not isinstance(settings, dict) or not all(isinstance(settings[key], str) for key in _names(settings)):
        # The core refuses these.
        return inbound
    rest = {key: value for key, value in settings.items() if key not in _names(settings)}
    return {**inbound, "settings": {**rest, "name": NO_DEVICE}}


def _names(settings: dict[str, Any]) -> list[str]:
    return [key for key, value in settings.items() if key.lower() == "name" and value is not None]


def is_address(listen: object) -> bool:
    """Whether the core understands this ``listen`` as an address."""
    if not isinstance(listen, str):
        return False
    if listen in {"", "localhost"} or listen.startswith("env:"):
        return True
    try:
        ipaddress.ip_address(listen.strip("[]"))
    except ValueError:
        return False
    return True
