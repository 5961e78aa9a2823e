"""An address of this machine that is not loopback's: a caller who uses it is a stranger to the node.

In a network of its own, where tests run side by side, there is none, so loopback gets a second one (TEST-NET-1). Elsewhere the
machine's own is taken.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct

_SIOCSIFADDR = 0x8916
_ADDRESS = "192.0.2.77"
_REQUEST = struct.Struct("16sHH4s16x")


def outside_address() -> str:
    """Return such an address; "" where the machine has none and does not let us make one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe, contextlib.suppress(OSError):
        # Nothing is sent.
        probe.connect(("192.0.2.1", 9))
        found = str(probe.getsockname()[0])
        if not ipaddress.ip_address(found).is_loopback:
            return found
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control, contextlib.suppress(OSError):
        request = _REQUEST.pack(b"lo:0", socket.AF_INET, 0, socket.inet_aton(_ADDRESS))
        fcntl.ioctl(control, _SIOCSIFADDR, request)
        return _ADDRESS
    return ""
