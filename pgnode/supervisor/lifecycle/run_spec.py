"""The config that has to run, as a start brought it. Pure, but for checking which geo files exist and the operator's outbound."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from pgnode.bus.snapshots import XRAY
from pgnode.errors import StartFailedError
from pgnode.os_support.files import read_regular
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import BaseConfig, InboundSpec, parse_config, unknown_config
from pgnode.xray.config.protocols import WIREGUARD
from pgnode.xray.config.wireguard import PLAIN, Egress, outbound_of, xray_config

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: Bytes of an operator's outbound at most.
OUTBOUND_BYTES = 1024 * 1024


def egress_of(settings: Settings) -> Egress:
    """Return what the operator wants for the traffic of WireGuard users.

    Args:
        settings: The ``WG_EGRESS_…`` settings.

    Returns:
        It, with what the file holds.

    Raises:
        StartFailedError: The file cannot be used.
    """
    path, outbound = settings.wg_egress_outbound_file, PLAIN.outbound
    if path is not None:
        try:
            outbound = outbound_of(read_regular(path, OUTBOUND_BYTES).decode())
        except StartFailedError as error:
            raise StartFailedError(f"WG_EGRESS_OUTBOUND_FILE {path}: {error.text}") from None
        except OSError as error:
            raise StartFailedError(f"WG_EGRESS_OUTBOUND_FILE {path} cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise StartFailedError(f"WG_EGRESS_OUTBOUND_FILE {path} is no text in UTF-8") from None
    servers = tuple(filter(None, settings.wg_egress_dns.split(",")))
    return Egress(outbound, servers, settings.wg_egress_sniffing)


def _type_of(message: bytes) -> pb.BackendType:
    """Return the type that a ``Backend`` message asks for; XRAY where it is damaged."""
    try:
        return pb.Backend.FromString(message).type
    except DecodeError:
        return pb.XRAY


@dataclass(slots=True)
class RunSpec:
    """A start's config, read."""

    #: The ``Backend`` message of the start, without its users.
    message: bytes
    base: BaseConfig
    #: Seconds without a call from the panel after which the node counts as degraded; 0 = never.
    keep_alive_seconds: int = 0
    #: Not so where a core is there and nobody knows more of its config than the hash.
    known: bool = True
    #: The inbounds whose users the node owns, by tag.
    inbounds: dict[str, InboundSpec] = field(init=False)
    #: What callers are told that runs: "xray" or "wireguard".
    core_type: str = field(init=False)

    def __post_init__(self) -> None:
        self.inbounds = self.base.managed_inbounds
        self.core_type = WIREGUARD if _type_of(self.message) == pb.WIREGUARD else XRAY

    def __repr__(self) -> str:
        return f"RunSpec({self.base.base_hash[:8]})"

    @classmethod
    def read(cls, message: pb.Backend, settings: Settings, environment: Mapping[str, str] = os.environ) -> RunSpec:
        """Read a ``Backend`` message whose users were taken out.

        Args:
            message: The message.
            settings: Paths.
            environment: What the core inherits.

        Returns:
            What has to run.

        Raises:
            StartFailedError: It cannot be read.
        """
        base = parse_config(
            message.config if message.type == pb.XRAY else xray_config(message.config, egress_of(settings)),
            exclude_inbounds=frozenset(message.exclude_inbounds),
            api_socket=str(settings.core_socket),
            assets_dir=settings.assets_dir,
            environment=environment,
        )
        return cls(message.SerializeToString(), base, message.keep_alive)

    @classmethod
    def unknown(cls, message: bytes, base_hash: str) -> RunSpec:
        """Stand in for a config of which only the hash is known, and the message that may have led to it."""
        return cls(message, unknown_config(base_hash), known=False)

    def asks_the_same(self, other: RunSpec) -> bool:
        """Whether a panel asked for the same config in both; two versions of the node may make something else of it."""
        if self.message == other.message:
            return True
        mine, theirs = pb.Backend.FromString(self.message), pb.Backend.FromString(other.message)
        return (mine.type, mine.config, sorted(mine.exclude_inbounds)) == (
            theirs.type,
            theirs.config,
            sorted(theirs.exclude_inbounds),
        )

    def as_runs(self, there: RunSpec) -> RunSpec:
        """Return this start with the base config that a core has already."""
        return RunSpec(self.message, there.base, self.keep_alive_seconds)
