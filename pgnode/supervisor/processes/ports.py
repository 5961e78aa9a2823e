"""The API's ports: the sockets that Gunicorn listens on, and holding a port for the gRPC workers, which share it."""

from __future__ import annotations

import errno
import socket
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog

from pgnode.api.callers import AllowedCallers
from pgnode.errors import PortInUseError
from pgnode.os_support.packet_filter import restrict
from pgnode.supervisor.processes.inheritance import NOTHING, Inheritance

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: The address is none of this machine's, or of a kind that it does not speak.
_NO_ADDRESS: Final = frozenset({errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT, errno.EINVAL, errno.ENODEV})

#: Connections that may wait to be accepted.
BACKLOG: Final = 4096


class ListeningSockets:
    """The sockets of the REST API, held by the supervisor: callers wait, and are not refused, while Gunicorn is replaced.

    Args:
        settings: The address and the ports.
        inheritance: What the supervisor before left.
    """

    def __init__(self, settings: Settings, inheritance: Inheritance = NOTHING) -> None:
        self._settings = settings
        self._inherited = inheritance.sockets
        self._sockets: dict[str, socket.socket] = {}

    def __repr__(self) -> str:
        return f"ListeningSockets({sorted(self._sockets)})"

    @property
    def names(self) -> Mapping[str, tuple[str, int]]:
        """What each socket is called when it is handed over, with the setting that names its port, and the port."""
        host = self._settings.node_host
        return {f"{name} {host} {port}": (name, port) for name, port in self._settings.gunicorn_ports.items()}

    @property
    def descriptors(self) -> Sequence[int]:
        """What Gunicorn inherits."""
        return [found.fileno() for found in self._sockets.values()]

    def open(self, *, inherited: bool = False) -> None:
        """Listen on each port.

        Args:
            inherited: Whether the sockets of the supervisor before are used.

        Raises:
            PortInUseError: Somebody else listens on one of them; the text names the setting.
        """
        for key, (name, port) in self.names.items():
            if inherited:
                # It may have the filter of the settings before.
                self._sockets[key] = self._restricted(socket.socket(fileno=self._inherited[key]))
                continue
            listener = _socket(self._settings.node_host, name, port)
            try:
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.bind((self._settings.node_host, port))
                self._restricted(listener).listen(BACKLOG)
            except OSError as error:
                listener.close()
                raise _in_use(self._settings.node_host, name, port, error) from None
            self._sockets[key] = listener

    def _restricted(self, listener: socket.socket) -> socket.socket:
        """Return a socket to which only those get who may call."""
        callers = AllowedCallers(self._settings.caller_networks, self._settings.local_hosts)
        try:
            restrict(listener, callers.networks)
        except OSError as error:
            # Nobody is to be kept away, and there was nothing to take away.
            if not callers.networks:
                return listener
            log.warning("callers that may not connect are refused after the handshake only", error=str(error))
        return listener

    def hand_over(self) -> Mapping[str, int]:
        """Leave the sockets to the next supervisor; they stay open."""
        left = {key: found.detach() for key, found in self._sockets.items()}
        self._sockets.clear()
        return left

    def close(self) -> None:
        """Give the ports back; they are free when Gunicorn has ended as well."""
        for found in self._sockets.values():
            found.close()
        self._sockets.clear()


def reserve_port(host: str, setting: str, port: int) -> socket.socket:
    """Hold a port for processes of this user that set SO_REUSEPORT.

    The socket is bound and never listens: workers of this node bind beside it, whether one is up or not, and a second node
    finds the port taken. Without this its workers would share the port without an error.

    Args:
        host: The address.
        setting: Name of the setting that says which port, for the error.
        port: The port.

    Returns:
        The socket. The port is held for as long as it is open.

    Raises:
        PortInUseError: Somebody else has the port.
    """
    holder = _socket(host, setting, port)
    try:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Bound without sharing first, which fails if anybody has the port; shared only after that.
        holder.bind((host, port))
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # That option was for connections of an earlier run that still end; left on, it would let in another node.
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 0)
    except OSError as error:
        holder.close()
        raise _in_use(host, setting, port, error) from None
    return holder


def what_to_do(error: OSError, setting: str) -> str:
    """Say what an operator does about a port that cannot be listened on.

    Args:
        error: What the system says.
        setting: Name of the setting that says which port.

    Returns:
        Half a sentence.
    """
    host = "METRICS_HOST" if setting == "METRICS_PORT" else "NODE_HOST"
    if error.errno in _NO_ADDRESS:
        if host == "METRICS_HOST":
            return "set METRICS_HOST to an address of this machine: 127.0.0.1 is for itself alone"
        return "set NODE_HOST to an address of this machine, or to 0.0.0.0 or :: for all of them"
    if error.errno in (errno.EACCES, errno.EPERM):
        return (
            f"set {setting} to 1024 or more, or give the node CAP_NET_BIND_SERVICE (AmbientCapabilities= in its unit)"
        )
    return f"end what listens there, or set {setting} (or {host}) to something else"


def _socket(host: str, setting: str, port: int) -> socket.socket:
    """Make a socket. Raises PortInUseError."""
    try:
        return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    except OSError as error:
        raise _in_use(host, setting, port, error) from None


def _in_use(host: str, setting: str, port: int, error: OSError) -> PortInUseError:
    return PortInUseError(f"port {port} on {host} cannot be used: {error.strerror}; {what_to_do(error, setting)}")
