"""A scratch core: it says how the core itself encodes inbounds and outbounds, which the node has as JSON only.

A short-lived process with just these entries, without users, its API on a socket of its own. Inbounds listen on abstract unix
sockets or free loopback ports instead of their own address, which is put back into what the core lists. Nothing here touches
the running core. Measured: 0.1 s for a config of eight inbounds.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
import socket
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pgnode.errors import StartFailedError
from pgnode.os_support import pdeath
from pgnode.os_support.files import set_aside
from pgnode.xray.client.api import CoreApi
from pgnode.xray.client.errors import CoreApiError
from pgnode.xray.config.diff import ConfigDiff
from pgnode.xray.config.document import BaseConfig
from pgnode.xray.config.inbounds import InboundSpec
from pgnode.xray.process import short_lived
from pgnode.xray.process.base import Core
from pgnode.xray.proto import core_pb2, net_pb2, proxyman_pb2

#: Bytes of the core's output that are kept for the reason of a failure.
_OUTPUT_BYTES: Final = 16 * 1024
_API_TAG: Final = "PG_NODE_SCRATCH"


@dataclass(frozen=True, slots=True)
class Encoded:
    """Entries as the core keeps them, by tag; inbounds listen where the config says and have no users."""

    inbounds: dict[str, core_pb2.InboundHandlerConfig]
    outbounds: dict[str, core_pb2.OutboundHandlerConfig]


async def encode_parts(
    core: Core, base: BaseConfig, diff: ConfigDiff, socket_path: Path, deadline_seconds: float
) -> Encoded:
    """Let a scratch core encode what a config diff adds.

    Args:
        core: The core to be asked.
        base: The config that is asked for.
        diff: What of it is added, by tag.
        socket_path: Path for the scratch core's API.
        deadline_seconds: Seconds until it has to be up, and as many until it has to have answered.

    Returns:
        Inbounds and outbounds by tag.

    Raises:
        StartFailedError: It did not come up, or does not know a part.
    """
    if not diff.add_inbounds and not diff.add_outbounds:
        return Encoded({}, {})
    specs = {spec.tag: spec for spec in base.inbounds if spec.tag in diff.add_inbounds}
    inbounds = [item for item in base.document["inbounds"] if item.get("tag") in specs]
    outbounds = [item for item in base.document.get("outbounds") or () if item.get("tag") in diff.add_outbounds]
    with _free_ports(sum(not _fits_unix(spec) for spec in specs.values())) as ports:
        document = scratch_document(inbounds, outbounds, specs, str(socket_path), ports)
    async with _running(core, json.dumps(document), socket_path, deadline_seconds) as api:
        try:
            listed_inbounds = {item.tag: item for item in await api.inbounds.list_inbounds(deadline_seconds)}
            listed_outbounds = {item.tag: item for item in await api.inbounds.list_outbounds(deadline_seconds)}
        except CoreApiError as error:
            raise StartFailedError(f"the scratch core does not list its parts: {error}") from None
    missing = (specs.keys() - listed_inbounds.keys()) | (set(diff.add_outbounds) - listed_outbounds.keys())
    if missing:
        raise StartFailedError(f"the scratch core does not list {sorted(missing)[0]!r}")
    return Encoded(
        {tag: put_back(listed_inbounds[tag], spec) for tag, spec in specs.items()},
        {tag: listed_outbounds[tag] for tag in diff.add_outbounds},
    )


def scratch_document(
    inbounds: Iterable[dict[str, Any]],
    outbounds: Iterable[dict[str, Any]],
    specs: dict[str, InboundSpec],
    api_socket: str,
    ports: Sequence[int],
) -> dict[str, Any]:
    """Make the scratch core's config. Pure; ``ports`` are as many as inbounds cannot listen on a unix socket."""
    left = iter(ports)
    name = secrets.token_hex(8)
    moved = []
    for number, inbound in enumerate(inbounds):
        if _fits_unix(specs[inbound["tag"]]):
            item = {key: value for key, value in inbound.items() if key != "port"}
            moved.append({**item, "listen": f"@pgnode-{name}-{number}"})
        else:
            moved.append({**inbound, "listen": "127.0.0.1", "port": next(left)})
    return {
        "log": {"loglevel": "warning", "access": "none"},
        "api": {"tag": _API_TAG, "listen": api_socket, "services": ["HandlerService", "StatsService"]},
        "stats": {},
        "inbounds": moved,
        # The first one is where everything goes that no rule matches: nothing.
        "outbounds": [{"protocol": "blackhole"}, *outbounds],
    }


def put_back(inbound: core_pb2.InboundHandlerConfig, spec: InboundSpec) -> core_pb2.InboundHandlerConfig:
    """Copy the inbound to the address of ``spec``, as the core encodes it (xray-core ``infra/conf/xray.go``). Pure."""
    receiver = proxyman_pb2.ReceiverConfig.FromString(inbound.receiver_settings.value)
    receiver.ClearField("listen")
    receiver.ClearField("port_list")
    if not spec.is_unix:
        receiver.port_list.CopyFrom(
            net_pb2.PortList(range=[net_pb2.PortRange(From=first, To=last) for first, last in spec.ports])
        )
    if spec.listen:
        receiver.listen.CopyFrom(_address(spec))
    changed = core_pb2.InboundHandlerConfig()
    changed.CopyFrom(inbound)
    changed.receiver_settings.value = receiver.SerializeToString(deterministic=True)
    return changed


def _address(spec: InboundSpec) -> net_pb2.IPOrDomain:
    try:
        return net_pb2.IPOrDomain(ip=ipaddress.ip_address(spec.listen).packed)
    except ValueError:
        return net_pb2.IPOrDomain(domain=spec.listen)


def _fits_unix(spec: InboundSpec) -> bool:
    """Whether it has a stream side, for which a unix socket does; what is UDP alone needs a port."""
    return spec.is_unix or "tcp" in spec.kinds


@contextlib.contextmanager
def _free_ports(count: int) -> Any:
    """Hold ports of loopback that are free for UDP now; nobody gets one of them from the kernel before the context ends."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) for _ in range(count)]
        for item in sockets:
            item.bind(("127.0.0.1", 0))
        yield [item.getsockname()[1] for item in sockets]


@contextlib.asynccontextmanager
async def _running(core: Core, config_json: str, socket_path: Path, deadline_seconds: float) -> AsyncIterator[CoreApi]:
    """Run a core with this config, until its API answers; it has ended when the context has, or when this process has."""
    _remove(socket_path)
    command, environment = core.short_lived()
    output = bytearray()
    try:
        async with short_lived.running("the scratch core", pdeath.command(command), environment) as (_, into, out_of):
            talking = asyncio.create_task(_talk(into, out_of, config_json, output))
            try:
                async with CoreApi(socket_path) as api:
                    ready = asyncio.create_task(api.wait_ready(deadline_seconds))
                    await asyncio.wait({talking, ready}, timeout=deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
                    if not ready.done() or ready.exception() is not None:
                        ready.cancel()
                        reason = _last_lines(output) or "no reason given"
                        raise StartFailedError(f"the scratch core did not come up: {reason}")
                    yield api
            finally:
                talking.cancel()
    finally:
        _remove(socket_path)


async def _talk(into: asyncio.StreamWriter, out_of: asyncio.StreamReader, config_json: str, output: bytearray) -> None:
    """Send the config, then read what it prints until it ends."""
    await short_lived.feed(into, config_json)
    while block := await out_of.read(4096):
        output += block
        del output[:-_OUTPUT_BYTES]


def _remove(socket_path: Path) -> None:
    # What cannot be removed is seen when the core comes up, or does not.
    for path in (socket_path, socket_path.with_name(f"{socket_path.name}.lock")):
        with contextlib.suppress(OSError):
            set_aside(path) if path.is_dir() else path.unlink(missing_ok=True)


def _last_lines(output: bytearray) -> str:
    return " | ".join(output.decode(errors="replace").splitlines()[-3:])
