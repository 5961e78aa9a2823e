"""What the node has to know about one inbound of a core config: where it listens and which users it takes."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

from pgnode.errors import StartFailedError
from pgnode.xray.config.peers import core_key_hex, public_key_of
from pgnode.xray.config.protocols import INBOUND_PROTOCOLS, TRANSPORTS, WIREGUARD, InboundProtocol, Sockets

_SS_2022_PREFIX: Final = "2022-blake3-"
#: Other digits than these are none to the core.
_PORT_PART = re.compile(r"\s*([0-9]{1,5})\s*(?:-\s*([0-9]{1,5})\s*)?\Z")

#: A value that the core reads in its environment: "env:NAME".
_FROM_ENVIRONMENT: Final = "env:"

_NOTHING: Final[Mapping[str, str]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class InboundSpec:
    """One inbound of the rewritten config.

    ``ports`` are ranges ``(first, last)``, both ends included; empty for a unix socket, or where the core takes the port
    from its environment. ``transport`` is one of raw, ws, grpc, httpupgrade, xhttp, mkcp, hysteria (aliases resolved).
    ``kinds`` holds "tcp" and/or "udp": the sockets it opens on its ports; empty for a unix socket or no socket at all.
    """

    tag: str
    protocol: str
    #: An address, "localhost", an absolute path or "@name" (abstract unix socket); "" = every IPv4 address.
    listen: str = ""
    ports: tuple[tuple[int, int], ...] = ()
    transport: str = "raw"
    kinds: frozenset[str] = frozenset({"tcp"})
    #: The node owns the user list of this inbound.
    managed: bool = False
    #: VLESS ``settings.flow``: wins over the user's own.
    flow: str = ""
    #: A user's flow works here: raw TCP below TLS or REALITY, nothing between.
    flow_allowed: bool = False
    #: Shadowsocks ``settings.method``, in lower case; "" when every user names a method of its own.
    method: str = ""
    #: WireGuard: the pre-shared key of all its users, in hexadecimal, "" for none.
    pre_shared_key: str = field(default="", repr=False)
    #: WireGuard: its own public key, in hexadecimal, "" where that is not known; no user can have it.
    public_key: str = ""
    #: Place among the inbounds as the panel counts them, from 1; 0 where that is not known.
    number: int = field(default=0, compare=False)
    #: The name of the network device that it sets up, "" for the core's own choice; None where it sets up none.
    device: str | None = None

    @property
    def title(self) -> str:
        """How an operator would call it: by tag, else by number."""
        return f"inbound {short(self.tag)}" if self.tag else f"inbound #{self.number}"

    @property
    def outlives_listener(self) -> bool:
        """Connections through it go on while it is away for a moment, so its users can be swapped."""
        transport, protocol = TRANSPORTS.get(self.transport), INBOUND_PROTOCOLS.get(self.protocol)
        return (
            transport is not None
            and transport.outlives_listener
            and not (protocol is not None and protocol.users is not None and not protocol.users.outlives_listener)
        )

    def accounts_as_in(self, other: InboundSpec) -> bool:
        """Whether a user has the same account in both: they agree in everything that an account is made from."""
        return (
            self.protocol == other.protocol
            and self.flow == other.flow
            and self.flow_allowed == other.flow_allowed
            and self.method == other.method
            and self.pre_shared_key == other.pre_shared_key
            and self.public_key == other.public_key
        )

    @property
    def is_shadowsocks_2022(self) -> bool:
        """The method is one of the 2022 family: users have keys, and no method of their own."""
        return self.method.startswith(_SS_2022_PREFIX)

    @property
    def key_bytes(self) -> int:
        """Length of a user's Shadowsocks-2022 key, in bytes; 0 when the inbound is not of that kind."""
        if not self.is_shadowsocks_2022:
            return 0
        return 16 if "aes-128" in self.method else 32

    @property
    def is_unix(self) -> bool:
        """It listens on a unix socket."""
        return self.listen.startswith(("/", "@"))


def read_inbound(
    inbound: dict[str, Any],
    number: int,
    exclude: Collection[str],
    warnings: list[str],
    environment: Mapping[str, str] = _NOTHING,
) -> InboundSpec:
    """Read what the node needs from one inbound of the config.

    Args:
        inbound: The inbound.
        number: Its place in the panel's list, from 1.
        exclude: Tags whose users stay the panel's.
        warnings: What will not work is added here.
        environment: The core's environment, where it looks for "env:NAME".

    Returns:
        What there is to know.

    Raises:
        StartFailedError: A value has not the type that the node itself must understand. Everything else is left for the core
            to check.
    """
    tag = _text(inbound, "tag", f"inbound #{number}")
    where = f"inbound {short(tag)}" if tag else f"inbound #{number}"
    protocol = _text(inbound, "protocol", where).lower()
    settings = _section(inbound, "settings", where)
    stream = _section(inbound, "streamSettings", where)
    listen = from_environment(_text(inbound, "listen", where), environment)

    # "method" is the core's newer name of the same field.
    transport = (_text(stream, "network", where) or _text(stream, "method", where) or "raw").lower()
    if transport in TRANSPORTS:
        transport = TRANSPORTS[transport].name
    traits = INBOUND_PROTOCOLS.get(protocol, InboundProtocol())
    detail_key = traits.users.detail_key if traits.users is not None else ""
    method = _text(settings, "method", where).lower() if detail_key == "method" else ""
    flow = _text(settings, "flow", where) if detail_key == "flow" else ""

    managed = traits.users is not None and bool(tag) and tag not in exclude
    if managed and method.startswith(_SS_2022_PREFIX) and "aes" not in method:
        # The core offers several users only with the AES methods; with clients it refuses the config.
        managed = False
        warnings.append(f"{where}: the core knows no users with {method}; it keeps its own password and gets no users")
    if not tag and traits.users is not None:
        warnings.append(f"{where} has no tag: it gets no users")

    flow_allowed = detail_key == "flow" and _is_bare_tls(stream, transport)
    if flow and not flow_allowed:
        warnings.append(f"{where}: flow {short(flow)} works only over TLS or REALITY on raw TCP")
    is_unix = listen.startswith(("/", "@"))
    pre_shared_key, public_key = _keys(settings, where) if managed and protocol == WIREGUARD else ("", "")
    return InboundSpec(
        tag=tag,
        number=number,
        protocol=protocol,
        listen=listen,
        ports=() if is_unix else read_ports(inbound.get("port"), environment),
        transport=transport,
        kinds=frozenset() if is_unix else _socket_kinds(traits.sockets, settings, stream, transport),
        managed=managed,
        flow=flow,
        flow_allowed=flow_allowed,
        method=method,
        pre_shared_key=pre_shared_key,
        public_key=public_key,
        device=_text(settings, "name", where) if protocol == "tun" else None,
    )


def _keys(settings: dict[str, Any], where: str) -> tuple[str, str]:
    """Return the pre-shared and the public key of a WireGuard inbound."""
    private_key = core_key_hex(_text(settings, "secretKey", where))
    if private_key is None:
        raise StartFailedError(f"{where}: secretKey is not a WireGuard key: it must be 32 bytes in base64")
    text = _text(settings, "preSharedKey", where)
    pre_shared_key = core_key_hex(text) if text else ""
    if pre_shared_key is None:
        raise StartFailedError(f"{where}: preSharedKey is not a WireGuard key: it must be 32 bytes in base64")
    return pre_shared_key, public_key_of(private_key)


def from_environment(text: str, environment: Mapping[str, str]) -> str:
    """Return what the core takes a value for: "env:NAME" stands for that variable where it is set."""
    name = text.strip()
    return environment.get(name.removeprefix(_FROM_ENVIRONMENT), text) if name.startswith(_FROM_ENVIRONMENT) else text


def read_ports(value: object, environment: Mapping[str, str] = _NOTHING) -> tuple[tuple[int, int], ...]:
    """Read the ranges of a config's ``port``: 443, "443", "1000-2000,3000", "env:NAME".

    Args:
        value: What the config says.
        environment: The core's environment.

    Returns:
        The ranges; what is no port is left out: the core checks it.
    """
    if isinstance(value, bool):
        return ()
    if isinstance(value, int):
        return ((value, value),) if 0 < value < 65536 else ()
    ranges: list[tuple[int, int]] = []
    for part in value.split(",") if isinstance(value, str) else ():
        match = _PORT_PART.match(from_environment(part, environment))
        if match is None:
            continue
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if 0 < first <= last < 65536:
            ranges.append((first, last))
    return tuple(ranges)


def port_fault(value: object, environment: Mapping[str, str] | None = None) -> str | None:
    """Say what is wrong with a config's ``port``.

    The core takes 0, 70000 and 20-10 without a word, and listens nowhere.

    Args:
        value: What the config says.
        environment: The core's environment; None where it is not known, and "env:NAME" may be anything.

    Returns:
        The fault, or None.
    """
    if value is None:
        return "port is missing"
    if isinstance(value, int) and not isinstance(value, bool):
        return None if read_ports(value) else f"port {short(value)} is not valid: ports are 1 to 65535"
    if not isinstance(value, str):
        return f'port {short(value)} is not valid: it must be a number, or ports and ranges such as "443,1000-2000"'
    for part in value.split(","):
        if part.strip().startswith(_FROM_ENVIRONMENT):
            fault = _variable_fault(part.strip(), environment) if environment is not None else None
            if fault is not None:
                return f"port {short(value)} is not valid: {fault}"
        elif not read_ports(part):
            return f"port {short(value)} is not valid: ports are 1 to 65535, ranges go upwards"
    return None


def listen_fault(listen: str, environment: Mapping[str, str]) -> str | None:
    """Say what is wrong with the name of the variable that a ``listen`` is taken from, or None."""
    name = listen.strip().removeprefix(_FROM_ENVIRONMENT)
    if listen.strip().startswith(_FROM_ENVIRONMENT) and name not in environment:
        return f"listen {short(listen)}: {_not_set(name)}"
    return None


def _variable_fault(text: str, environment: Mapping[str, str]) -> str | None:
    name = text.removeprefix(_FROM_ENVIRONMENT)
    if name not in environment:
        return _not_set(name)
    found = environment[name]
    return None if read_ports(found) and "," not in found else f"it is {short(found)} there, and ports are 1 to 65535"


def _not_set(name: str) -> str:
    return f"the core has no variable {short(name)}; set it for the node, and name it in PASS_ENVIRONMENT"


def _is_bare_tls(stream: dict[str, Any], transport: str) -> bool:
    """Whether it is raw TCP with TLS or REALITY right on it; an HTTP-like header in between makes the core refuse the flow."""
    if transport != "raw" or str(stream.get("security") or "").lower() not in {"tls", "reality"}:
        return False
    for name in ("rawSettings", "tcpSettings"):
        options = stream.get(name)
        header = options.get("header") if isinstance(options, dict) else None
        if isinstance(header, dict) and str(header.get("type") or "none").lower() != "none":
            return False
    return True


def _socket_kinds(sockets: Sockets, settings: dict[str, Any], stream: dict[str, Any], transport: str) -> frozenset[str]:
    if sockets is Sockets.NONE:
        return frozenset()
    if sockets is Sockets.UDP:
        return frozenset({"udp"})
    known = TRANSPORTS.get(transport)
    transport_kind = "udp" if (known is not None and known.udp) or _is_http3(stream, transport) else "tcp"
    if sockets is Sockets.BY_NETWORK:
        value = settings.get("network", settings.get("allowedNetwork"))
        names = value.split(",") if isinstance(value, str) else value if isinstance(value, list) else ["tcp"]
        wanted = {str(name).strip().lower() for name in names}
        kinds = {"udp"} if "udp" in wanted else set()
        if "tcp" in wanted:
            kinds.add(transport_kind)
        return frozenset(kinds)
    if sockets is Sockets.WITH_UDP and settings.get("udp") is True:
        return frozenset({transport_kind, "udp"})
    return frozenset({transport_kind})


def _is_http3(stream: dict[str, Any], transport: str) -> bool:
    """XHTTP listens on UDP when TLS offers HTTP/3 and nothing else (xray-core ``transport/internet/splithttp/hub.go``)."""
    tls = stream.get("tlsSettings")
    return transport == "xhttp" and isinstance(tls, dict) and tls.get("alpn") in (["h3"], "h3")


def _text(part: dict[str, Any], field: str, where: str) -> str:
    value = part.get(field)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise StartFailedError(f"{where}: {field} must be a string, not {json_type(value)}")
    if not _is_unicode(value):
        raise StartFailedError(f"{where}: {field} holds half a surrogate pair, which is no text")
    return value


def _section(part: dict[str, Any], field: str, where: str) -> dict[str, Any]:
    value = part.get(field)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise StartFailedError(f"{where}: {field} must be an object, not {json_type(value)}")
    return value


def _is_unicode(text: str) -> bool:
    # JSON can escape half a surrogate pair; Python keeps it, UTF-8 cannot carry it.
    return not any("\ud800" <= char <= "\udfff" for char in text)


def json_type(value: object) -> str:
    """Name the type of a parsed value as JSON does, for messages."""
    names = {type(None): "null", bool: "a boolean", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def short(value: object) -> str:
    """Show a value, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 48 else text[:45] + "…" + text[0]
