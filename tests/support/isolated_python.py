"""Run Python in a network of its own, with nothing but loopback: ``isolated_python.py -c …`` is ``python -c …`` there.

Tests that run at the same time cannot take each other's ports then, nor abstract sockets. Root may do it at once,
others in a user namespace, where the machine lets them. Exit code 3 where it does not. Needs no other program, and
nothing outside the standard library.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1

#: Exit code where the machine does not allow it.
NOT_ALLOWED = 3


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(flags):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def keep_identity(uid: int, gid: int) -> None:
    """Be the same user in a new user namespace."""
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
    Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def loopback_up() -> None:
    """Bring loopback up; a new network has it down."""
    request = struct.Struct("16sh22x")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        found = fcntl.ioctl(control, SIOCGIFFLAGS, request.pack(b"lo", 0))
        (_, flags) = request.unpack(found)
        fcntl.ioctl(control, SIOCSIFFLAGS, request.pack(b"lo", flags | IFF_UP))


def isolate() -> None:
    """Leave the machine's network for one of our own. Raises OSError."""
    uid, gid = os.geteuid(), os.getegid()
    try:
        unshare(CLONE_NEWNET)
    except PermissionError:
        unshare(CLONE_NEWUSER | CLONE_NEWNET)
        keep_identity(uid, gid)
    loopback_up()


def is_possible() -> bool:
    """Whether the machine lets this process do so."""
    return subprocess.run([sys.executable, __file__, "-c", ""], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    try:
        isolate()
    except OSError as error:
        print(f"no network of its own: {error}", file=sys.stderr)
        sys.exit(NOT_ALLOWED)
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
