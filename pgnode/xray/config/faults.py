"""Faults of a config that the core takes without a word, or ends over without one. Pure.

They are looked for when a start asks for the config, and not in one that runs already: what runs, goes on.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.inbounds import port_fault
from pgnode.xray.config.listeners import conflict, metrics_fault
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS, Sockets
from pgnode.xray.config.strings import own_socket_fault


def config_fault(base: BaseConfig, own_folder: Path) -> str | None:
    """Return what is wrong with a config, or None. Follows links in paths that it names.

    Args:
        base: The config.
        own_folder: The folder of the node's sockets.

    Returns:
        A sentence that begins with the name of the part.
    """
    return next(_faults(base, own_folder), None)


def _faults(base: BaseConfig, own_folder: Path) -> Iterator[str]:
    document = base.document
    fault = own_socket_fault(document, own_folder)
    if fault is not None:
        yield fault
    for inbound, spec in zip(document["inbounds"], base.inbounds, strict=True):
        protocol = INBOUND_PROTOCOLS.get(spec.protocol)
        if protocol is None or protocol.sockets is Sockets.NONE or spec.is_unix:
            # What the core does not know is told by it.
            continue
        fault = port_fault(inbound.get("port"))
        if fault is not None:
            yield f"{spec.title}: {fault}"
    metrics = document.get("metrics")
    fault = metrics_fault(metrics) or conflict(base.inbounds, metrics)
    if fault is not None:
        yield fault
