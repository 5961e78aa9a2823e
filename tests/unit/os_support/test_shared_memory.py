"""Bytes in shared memory: found by their handle alone, whole and unchangeable, and gone with whoever holds them."""

from __future__ import annotations

import errno
import fcntl
import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from unittest import mock

import pytest

from pgnode.os_support import shared_memory
from pgnode.os_support.shared_memory import open_shared, share
from tests.faults.test_disk_faults import may_mount

DATA = os.urandom(300_000)

_HOLD = """
import sys
from pgnode.os_support.shared_memory import share
held = share(b"of another process" * 1000)
print(held.handle, flush=True)
sys.stdin.read()
"""


def test_what_is_shared_is_found_and_stays_while_somebody_maps_it() -> None:
    shared = share(DATA)
    found = open_shared(shared.handle)
    assert found is not None
    assert found == shared.view == DATA
    assert found.readonly
    shared.close()
    assert open_shared(shared.handle) is None, "nobody finds it any more"
    assert found == DATA
    assert shared.handle in repr(shared)


def test_another_process_may_end_at_any_moment() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        handle = holder.stdout.readline().strip()
        found = open_shared(handle)
        assert found is not None
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert bytes(found[:18]) == b"of another process"
        assert open_shared(handle) is None


def test_nobody_can_change_or_cut_it() -> None:
    shared = share(DATA)
    descriptor = int(shared.handle.split(":")[1])
    for change in (
        lambda: os.truncate(descriptor, 1),
        lambda: os.pwrite(descriptor, b"x", 0),
        lambda: mmap.mmap(descriptor, 10, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        lambda: fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, 0),
    ):
        with pytest.raises(OSError, match="not permitted"):
            change()
    shared.close()


def _other_size(handle: str) -> str:
    pid, number, size, token = handle.split(":")
    return f"{pid}:{number}:{int(size) + 1}:{token}"


def _other_token(handle: str) -> str:
    return handle[:-1] + ("0" if handle[-1] != "0" else "1")


def _other_file(handle: str) -> str:
    pid, _, size, token = handle.split(":")
    return f"{pid}:0:{size}:{token}"


@pytest.mark.parametrize("changed", [_other_size, _other_token, _other_file, lambda _handle: "", lambda h: h + "\n"])
def test_a_handle_of_something_else_finds_nothing(changed: Callable[[str], str]) -> None:
    shared = share(DATA)
    assert open_shared(changed(shared.handle)) is None
    shared.close()


def test_a_file_that_could_be_cut_is_not_mapped() -> None:
    token = "0" * 32
    descriptor = os.memfd_create(f"pgnode-shared-{token}", os.MFD_ALLOW_SEALING)
    os.write(descriptor, b"whole")
    handle = f"{os.getpid()}:{descriptor}:5:{token}"
    assert open_shared(handle) is None
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, shared_memory._SEALS)
    found = open_shared(handle)
    assert found is not None
    assert bytes(found) == b"whole"
    os.close(descriptor)


def _descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.ENOMEM])
def test_no_room_is_an_error_and_leaves_nothing(number: int) -> None:
    before, written = _descriptors(), list[int]()

    def full(descriptor: int, data: memoryview) -> int:
        if written:
            raise OSError(number, os.strerror(number))
        written.append(descriptor)
        return 100

    with mock.patch("os.write", full), pytest.raises(OSError, match=os.strerror(number)):
        share(DATA)
    assert _descriptors() == before


def test_a_machine_without_such_files_or_without_proc_is_an_error() -> None:
    before = _descriptors()
    with mock.patch("os.memfd_create", side_effect=OSError(errno.EPERM, "no")), pytest.raises(OSError, match="no"):
        share(DATA)
    with mock.patch.object(shared_memory, "open_shared", return_value=None), pytest.raises(OSError, match="own files"):
        share(DATA)
    assert _descriptors() == before


def test_a_kernel_that_does_not_know_a_flag_is_asked_without_it() -> None:
    make, flags = os.memfd_create, []

    def old(name: str, given: int) -> int:
        flags.append(given)
        if len(flags) == 1:
            raise OSError(errno.EINVAL, "unknown flag")
        return make(name, given)

    with mock.patch("os.memfd_create", old):
        shared = share(DATA)
    assert shared.view == DATA
    assert flags[0] & ~flags[1] == 0x0008
    shared.close()


_SHARE = """
import os, sys
from pgnode.os_support.shared_memory import open_shared, share
from tests.faults.test_disk_faults import may_mount
try:
    while True:
        with open(f"/dev/shm/{os.urandom(8).hex()}", "wb") as file:
            file.write(bytes(4096))
except OSError as error:
    print(error.strerror)
data = os.urandom(10_000_000)
shared = share(data)
assert open_shared(shared.handle) == data
print("shared")
"""


@pytest.mark.parametrize(
    ("change", "said"),
    [("mount -t tmpfs -o size=64k none /dev/shm", "No space left"), ("mount -t tmpfs none /dev", "No such file")],
)
def test_dev_shm_may_be_full_or_missing(change: str, said: str) -> None:
    if not may_mount():
        pytest.skip(
            "this process may not mount a file system (CAP_SYS_ADMIN), and without one /dev/shm cannot be filled"
        )
    command = ["unshare", "--mount", "sh", "-ec", f'{change}; exec "$@"', "sh", sys.executable, "-c", _SHARE]
    ran = subprocess.run(command, capture_output=True, text=True, check=True)
    assert said in ran.stdout
    assert ran.stdout.splitlines()[-1] == "shared"
