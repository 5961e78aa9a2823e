"""Faults of a config that can be seen without the core, and told better than by naming the part. Pure, but for files named."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pgnode.xray.config.inbounds import port_fault, short
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS, OUTBOUND_PROTOCOLS, TRANSPORTS
from pgnode.xray.process.config_parts import Part
from pgnode.xray.process.unbindable import is_address


def known_fault(part: Part, before: Sequence[Part]) -> str | None:
    """Return a better text for faults that can be seen without the core, or None."""
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
        return f"two {plural} have the {label} {short(tag)}"
    if part.section == "routing.rules" and not value.get("outboundTag") and not value.get("balancerTag"):
        return f"{part.name} has neither outboundTag nor balancerTag"
    if part.section in {"inbounds", "outbounds"}:
        return _known_endpoint_fault(part, value)
    return None


def _known_endpoint_fault(part: Part, value: dict[str, Any]) -> str | None:
    is_inbound = part.section == "inbounds"
    name = part.name
    protocol = value.get("protocol")
    known = INBOUND_PROTOCOLS if is_inbound else OUTBOUND_PROTOCOLS
    if not isinstance(protocol, str) or protocol.lower() not in known:
        return f"{name}: protocol {short(protocol)} is not one the core knows"
    if is_inbound:
        fault = _address_fault(value)
        if fault is not None:
            return f"{name}: {fault}"
    stream = value.get("streamSettings")
    if stream is None and is_inbound and protocol.lower() == "hysteria":
        stream = {}
    if not isinstance(stream, dict):
        return None
    transport = stream.get("network") or stream.get("method") or "raw"
    if not isinstance(transport, str) or transport.lower() not in TRANSPORTS:
        return f"{name}: transport {short(transport)} is not one the core knows"
    if is_inbound and protocol.lower() == "hysteria" and str(stream.get("security")).lower() != "tls":
        return f'{name}: Hysteria needs TLS: streamSettings.security must be "tls"'
    tls = stream.get("tlsSettings")
    certificates = tls.get("certificates") if isinstance(tls, dict) else None
    for certificate in certificates if isinstance(certificates, list) else ():
        for field in ("certificateFile", "keyFile"):
            path = certificate.get(field) if isinstance(certificate, dict) else None
            if isinstance(path, str) and path and not Path(path).is_file():
                return f"{name}: {field} {short(path)} does not exist"
    return None


def _address_fault(inbound: dict[str, Any]) -> str | None:
    listen, port, protocol = inbound.get("listen"), inbound.get("port"), str(inbound.get("protocol")).lower()
    if protocol == "tun":
        return None
    if isinstance(listen, str) and listen.startswith(("/", "@")):
        return None
    if listen is not None and not is_address(listen):
        return f"listen {short(listen)} is no IP address and no path"
    return port_fault(port)
