"""An address of this machine that is not loopback's: a caller who uses it is a stranger to the node.

In a network of its own, where tests run side by side, there is none, so loopback gets a second one (of TEST-NET-2). Elsewhere the
machine's own is taken. It is that one address alone: addresses of a whole network beside it would be this machine's, too, and
a core can be made sure not to serve only by an address that no machine has (one of TEST-NET-1).
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import socket
import struct

_SIOCSIFADDR, _SIOCSIFNETMASK = 0x8916, 0x891C
_ADDRESS, _ALONE = "198.51.100.77", "255.255.255.255"
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
        for what, value in ((_SIOCSIFADDR, _ADDRESS), (_SIOCSIFNETMASK, _ALONE)):
            fcntl.ioctl(control, what, _REQUEST.pack(b"lo:0", socket.AF_INET, 0, socket.inet_aton(value)))
        return _ADDRESS
    return ""
