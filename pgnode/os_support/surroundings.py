"""What the node cannot do without, looked at before anything else: one sentence where it is missing.

Knows no library, since some of them fail at their import where ``/dev/null`` or ``/proc`` is missing.
"""

from __future__ import annotations

import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Iterable, MutableMapping
from pathlib import Path

#: Open files below which nothing comes up.
FILES_MIN = 64

#: Bytes of a file below which nothing can be stored.
FILE_BYTES_MIN = 16 * 1024 * 1024

#: A folder whose files are in memory.
MEMORY = Path("/dev/shm")  # noqa: S108

#: The variable that keeps Python from ending with its program.
INSPECT = "PYTHONINSPECT"

_UNLIMITED = resource.RLIM_INFINITY


def what_is_missing(
    *,
    proc: Path = Path("/proc"),
    null: Path = Path(os.devnull),
    random: Path = Path("/dev/urandom"),
    loopback: str = "127.0.0.1",
) -> str | None:
    """Say what is missing without which the node cannot run.

    Args:
        proc: Where the kernel tells about processes.
        null: The file that takes everything.
        random: The file that gives random bytes; a library of gRPC's ends its process without it.
        loopback: The address under which this machine reaches itself.

    Returns:
        A sentence that says what to do, or None.
    """
    return _folder_missing() or _files_missing(proc, null, random) or _limits_missing() or _loopback_missing(loopback)


def _folder_missing() -> str | None:
    """Say what is wrong with the folder in which the node was started: Gunicorn and relative paths need it."""
    try:
        folder = Path.cwd()
    except OSError:
        return "the folder in which this command was started is not there any more: start it in another one (cd /)"
    if not os.access(folder, os.X_OK):
        return (
            f"this user (uid {os.geteuid()}) may not enter the folder in which this command was started ({folder}): start it in "
            "another one (cd /)"
        )
    return None


def _files_missing(proc: Path, null: Path, random: Path) -> str | None:
    if not os.access(proc / "self" / "stat", os.R_OK):
        return f"{proc} is not there, or does not tell about processes: mount it (mount -t proc proc {proc})"
    if not os.access(null, os.R_OK | os.W_OK):
        return f"{null} is not there, or cannot be written: make it (mknod -m 666 {null} c 1 3)"
    if not os.access(random, os.R_OK):
        return f"{random} is not there, or cannot be read: make it (mknod -m 666 {random} c 1 9)"
    return None


def _limits_missing() -> str | None:
    _, files = resource.getrlimit(resource.RLIMIT_NOFILE)
    if files != _UNLIMITED and files < FILES_MIN:
        return f"only {files} files may be open: allow {FILES_MIN} at least, and far more for many connections (ulimit -Hn)"
    size, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if size != _UNLIMITED and size < FILE_BYTES_MIN:
        return f"files may have {size:,} bytes only: allow {FILE_BYTES_MIN:,} at least, or as many as they need (ulimit -f)"
    return None


def _loopback_missing(loopback: str) -> str | None:
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            # Sends nothing: it only finds out whether there is a way.
            probe.connect((loopback, 9))
    except OSError as error:
        return f"{loopback} cannot be reached ({error.strerror}): bring loopback up (ip link set lo up)"
    return None


def find_temporary_folder(environment: MutableMapping[str, str], others: Iterable[Path]) -> str | None:
    """Let temporary files be made where that is possible: in some containers nothing can be written but what is mounted.

    Args:
        environment: This process's environment; its TMPDIR is set where no usual folder can be used.
        others: Further folders, the best first.

    Returns:
        A sentence where there is none at all; else None.
    """
    import tempfile  # noqa: PLC0415 - needed in no other case

    try:
        tempfile.gettempdir()
    except FileNotFoundError:
        for folder in others:
            if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
                environment["TMPDIR"] = str(folder)
                return None
        return "there is no folder for temporary files that can be written: make /tmp writable, or name one in TMPDIR"
    return None


def end_with_the_program(environment: MutableMapping[str, str]) -> None:
    """Begin anew without PYTHONINSPECT: with it Python asks for more where a program has ended, or fails where nobody answers.

    Args:
        environment: This process's environment.
    """
    if environment.pop(INSPECT, ""):
        os.execve(sys.executable, sys.orig_argv, environment)  # noqa: S606 - as it was started


def reset_signals() -> None:
    """Let signals through that whoever started this process has blocked; children inherit what is blocked.

    Ends of children are told again where they were ignored.
    """
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if threading.current_thread() is threading.main_thread():
        # No other may set that.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
