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


#: Sections that are the node's own.
OWN_SECTIONS: Final = frozenset({"api"})


def unbindable(document: dict[str, Any]) -> dict[str, Any]:
    """Make a copy of the config with which no core can serve: inbounds at addresses that do not exist, no API, no metrics port.

    What makes the core refuse a config is kept, an address it does not understand included.
    """
    inbounds = [_unbindable_inbound(inbound) for inbound in document.get("inbounds") or ()]
    result = {key: value for key, value in document.items() if key not in OWN_SECTIONS}
    # A tun inbound would set up a network device before anything fails.
    result["inbounds"] = [item for item in inbounds if not (isinstance(item, dict) and item.get("protocol") == "tun")]
    result["inbounds"].append(_STOPPER)
    metrics = result.get("metrics")
    if isinstance(metrics, dict):
        result["metrics"] = {key: value for key, value in metrics.items() if key.lower() != "listen"}
    return result


def _unbindable_inbound(inbound: Any) -> Any:
    if not isinstance(inbound, dict):
        return inbound
    listen = inbound.get("listen")
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return {**inbound, "listen": _NO_PATH}
    if listen is None or is_address(listen):
        return {**inbound, "listen": _NO_ADDRESS}
    return inbound


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
