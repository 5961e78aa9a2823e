"""The API's ports: whether they are free, and holding one for the gRPC workers, which share it."""

from __future__ import annotations

import socket

from pgnode.errors import PortInUseError
from pgnode.settings import Settings


def check_gunicorn_ports(settings: Settings) -> None:
    """Check that Gunicorn can have its ports.

    Args:
        settings: Its address and ports.

    Raises:
        PortInUseError: Somebody else listens on one of them; the text names the setting.
    """
    for setting, port in settings.gunicorn_ports.items():
        with _socket(settings.node_host) as probe:
            try:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind((settings.node_host, port))
            except OSError as error:
                raise _in_use(settings.node_host, setting, port, error) from None


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
    holder = _socket(host)
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


def _socket(host: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)


def _in_use(host: str, setting: str, port: int, error: OSError) -> PortInUseError:
    return PortInUseError(
        f"port {port} on {host} cannot be used: {error.strerror}; "
        f"end what listens there, or set {setting} (or NODE_HOST) to something else"
    )
