"""Faults of a config that the core takes without a word, or ends over without one. Pure, but for files that it names.

They are looked for when a start asks for the config, and not in one that runs already: what runs, goes on.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pgnode.xray.config.certificates import certificate_fault
from pgnode.xray.config.destinations import own_port_fault
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.environment import variable_fault
from pgnode.xray.config.inbounds import listen_fault, port_fault, short
from pgnode.xray.config.listeners import conflict, metrics_fault, plain_address, unix_fault
from pgnode.xray.config.names import name_fault, target_fault
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS, Sockets
from pgnode.xray.config.scripts import script_fault
from pgnode.xray.config.strings import own_socket_fault, zero_fault
from pgnode.xray.config.tun import tun_fault


def config_fault(
    base: BaseConfig,
    own_folder: Path,
    *,
    environment: Mapping[str, str] = os.environ,
    cert_dir: Path | None = None,
    own_port: int | None = None,
    own_names: Collection[str] = frozenset(),
    script_paths: Sequence[Path] = (),
) -> str | None:
    """Return what is wrong with a config, or None. Follows links in paths that it names, and reads its certificates.

    Args:
        base: The config.
        own_folder: The folder of the node's sockets.
        environment: What the core inherits.
        cert_dir: The folder where the core looks for certificates with a relative path.
        own_port: A port on which the node answers without a key.
        own_names: Names and addresses, in small letters, that lead to that port as those of loopback do.
        script_paths: Scripts that the core may run, and folders of such.

    Returns:
        A sentence that begins with the name of the part.
    """
    led = own_port_fault(base.document, own_port, base.numbers.of(base.document), own_names)
    return led or next(_faults(base, own_folder, environment, cert_dir, script_paths), None)


def _faults(
    base: BaseConfig,
    own_folder: Path,
    environment: Mapping[str, str],
    cert_dir: Path | None,
    script_paths: Sequence[Path],
) -> Iterator[str]:
    document = base.document
    numbers = base.numbers.of(document)
    fault = (
        name_fault(document, numbers)
        or target_fault(document, numbers)
        # Before paths are followed.
        or zero_fault(document, numbers)
        or variable_fault(document)
        or script_fault(document, script_paths)
        or own_socket_fault(document, own_folder, numbers=numbers)
    )
    if fault is not None:
        yield fault
    yield from _certificate_faults(document, numbers, cert_dir)
    for inbound, spec in zip(document["inbounds"], base.inbounds, strict=True):
        if spec.device is not None and (fault := tun_fault(inbound.get("settings"))) is not None:
            yield f"{spec.title}: {fault}"
        listen = inbound.get("listen")
        fault = listen_fault(listen, environment) if isinstance(listen, str) else None
        if fault is None and spec.is_unix:
            fault = unix_fault(spec.listen)
        if fault is not None:
            yield f"{spec.title}: {fault}"
        if spec.listen != listen and listen and plain_address(spec.listen) is None and not spec.is_unix:
            yield f"{spec.title}: listen {short(listen)} is {short(spec.listen)} there, which is no IP address and no path"
        protocol = INBOUND_PROTOCOLS.get(spec.protocol)
        if protocol is None or protocol.sockets is Sockets.NONE or spec.is_unix:
            # What the core does not know is told by it.
            continue
        fault = port_fault(inbound.get("port"), environment)
        if fault is not None:
            yield f"{spec.title}: {fault}"
    metrics = document.get("metrics")
    fault = metrics_fault(metrics) or conflict(base.inbounds, metrics)
    if fault is not None:
        yield fault


def _certificate_faults(
    document: dict[str, Any], numbers: Mapping[str, Sequence[int]], cert_dir: Path | None
) -> Iterator[str]:
    for section, label in (("inbounds", "inbound"), ("outbounds", "outbound")):
        for item, number in zip(document.get(section) or (), numbers.get(section, ()), strict=False):
            fault = certificate_fault(item, cert_dir)
            if fault is not None:
                tag = item.get("tag")
                yield f"{label} {short(tag) if tag else f'#{number}'}: {fault}"
