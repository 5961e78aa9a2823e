"""Bytes that several processes map and nobody copies: files without a name (memfd), sealed, so that nobody changes or cuts them.

They are in no folder: nothing has to be removed when a process is killed, and /dev/shm is not used. Another process of the
same user opens one by the handle, through ``/proc`` of the process that holds it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

#: Of linux/memfd.h; a machine may insist on it, and older kernels do not know it.
_MFD_NOEXEC_SEAL: Final = 0x0008

_SEALS: Final = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL

_NAME: Final = "pgnode-shared-"
_HANDLE: Final = re.compile(r"([0-9]{1,10}):([0-9]{1,10}):([0-9]{1,15}):([0-9a-f]{32})")


@dataclass(frozen=True, slots=True)
class SharedBytes:
    """Bytes in shared memory, which are there until :meth:`close` and as long as anybody maps them."""

    #: How other processes find them.
    handle: str
    view: memoryview
    _descriptor: int

    def __repr__(self) -> str:
        return f"SharedBytes({self.handle})"

    def close(self) -> None:
        """Let go of them: nobody finds them any more."""
        os.close(self._descriptor)


def share(data: bytes) -> SharedBytes:
    """Put bytes where other processes can map them.

    Args:
        data: The bytes; not empty.

    Returns:
        The bytes as they are shared.

    Raises:
        OSError: The system has no such files, or no room.
    """
    token = secrets.token_hex(16)
    descriptor = _unnamed_file(f"{_NAME}{token}")
    try:
        # Written, not mapped: a lack of room is an error here, and no signal later on.
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
        handle = f"{os.getpid()}:{descriptor}:{len(data)}:{token}"
        view = open_shared(handle)
        if view is None:
            raise OSError(errno.ENOSYS, "/proc does not show this process's own files")
    except BaseException:
        os.close(descriptor)
        raise
    return SharedBytes(handle, view, descriptor)


def _unnamed_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_NOEXEC_SEAL)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
    return os.memfd_create(name, flags)


def open_shared(handle: str) -> memoryview | None:
    """Map bytes that another process shares.

    Args:
        handle: How they are found.

    Returns:
        The bytes, for as long as they are referred to; None where they are not there, or not for this process.
    """
    found = _HANDLE.fullmatch(handle)
    if found is None:
        return None
    pid, number, size, token = found.groups()
    path, name = Path(f"/proc/{pid}/fd/{number}"), Path(f"/memfd:{_NAME}{token} (deleted)")
    with contextlib.suppress(OSError, ValueError):
        # Nothing else is opened: a number of a process that has gone may be anything by now.
        if path.readlink() != name:
            return None
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
        try:
            if Path(f"/proc/self/fd/{descriptor}").readlink() != name or not _is_whole(descriptor, int(size)):
                return None
            return memoryview(mmap.mmap(descriptor, int(size), mmap.MAP_SHARED, mmap.PROT_READ))
        finally:
            os.close(descriptor)
    return None


def _is_whole(descriptor: int, size: int) -> bool:
    """Whether a file has this size for good: one that is cut while it is mapped ends whoever reads it."""
    return os.fstat(descriptor).st_size == size and fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & _SEALS == _SEALS
