"""What makes this node this node: its state folder, the lock on it, its API key and its certificate."""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import os
import socket
import stat
import subprocess
import sys
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import psutil

from pgnode.errors import OperatorError, SettingsError, StateDirBusyError
from pgnode.os_support.files import kind_of, read_regular, write_atomically
from pgnode.settings.handover import hand_over
from pgnode.supervisor.host.node_lock import LOCK_NAME

if TYPE_CHECKING:
    from pgnode.settings import Settings

#: What makes a certificate.
CERTIFICATE_MODULE = "pgnode.supervisor.host.own_certificate"

#: Seconds that a certificate may take: a machine may be very busy.
CERTIFICATE_SECONDS = 60.0

#: Addresses beyond this many do not fit into a certificate the panel takes.
CERT_MAX_ADDRESSES = 12

#: What is read of a key, and of a pid, at most.
_KEY_BYTES = 4096
_PID_CHARACTERS = 20


@dataclass(frozen=True, slots=True)
class Identity:
    """The node's key and certificate, which nobody has seen yet where they are new."""

    api_key: str
    key_is_new: bool
    cert_is_new: bool


def prepare_state_dir(settings: Settings) -> None:
    """Make the state folder (0700) and the folders in it. Raises SettingsError."""
    needed = (settings.state_dir, settings.run_dir, settings.state_dir / "tls")
    try:
        for folder in (*needed, settings.state_dir / "assets"):
            if (found := kind_of(folder)) not in ("", "a folder"):
                raise SettingsError(
                    f"{folder} is {found}, and has to be a folder: move it away, then start the node again"
                )
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if folder in needed and not os.access(folder, os.R_OK | os.X_OK):
                raise SettingsError(
                    f"{folder} may not be read by this user (uid {os.geteuid()}): give it to this user with all that is in it "
                    "(chown -R), with mode 0700"
                )
        settings.state_dir.chmod(0o700)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise SettingsError(
            f"STATE_DIR={settings.state_dir} cannot be used: {error.strerror}{where}; choose a folder that this user may write, "
            "and that has room"
        ) from None


def lock_state_dir(settings: Settings, held: int = -1) -> IO[str]:
    """Hold the state folder for this process.

    Args:
        settings: The folder.
        held: A descriptor with which this process holds it since before a restart in place; -1 for none.

    Returns:
        A file; the folder is held for as long as it is open.

    Raises:
        StateDirBusyError: Another node holds it; the text names its pid.
        SettingsError: There is no lock to be had.
    """
    path = settings.run_dir / LOCK_NAME
    try:
        # Not inherited by children (Python's default), so that nothing that outlives us keeps the lock. Non-blocking for
        # whatever may be in its place, such as a FIFO.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
    except OSError as error:
        raise SettingsError(f"{path} cannot be opened: {error.strerror}; {_what_to_do('STATE_DIR')}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise SettingsError(f"{path} is no regular file: remove it, then start the node again")
    if held >= 0 and _is_same_file(held, descriptor):
        # The lock goes with what was opened, and would be lost for a moment if it were taken anew.
        os.close(descriptor)
        descriptor = held
    handle = open(descriptor, "r+", encoding="ascii", errors="replace")  # noqa: SIM115
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = handle.read(_PID_CHARACTERS).strip() or "unknown"
        handle.close()
        raise StateDirBusyError(
            f"another node holds STATE_DIR={settings.state_dir} (pid {holder}): end it, or give this one its own STATE_DIR"
        ) from None
    except OSError as error:
        handle.close()
        raise SettingsError(f"{path} cannot be locked: {error.strerror}; put STATE_DIR on a local disk") from None
    # For people only: on a full disk the lock holds without it.
    with contextlib.suppress(OSError):
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return handle


def _is_same_file(one: int, other: int) -> bool:
    try:
        return os.path.samestat(os.fstat(one), os.fstat(other))
    except OSError:
        return False


def ensure_identity(settings: Settings) -> Identity:
    """Read the key and the certificate, and make them where there are none.

    Args:
        settings: Where they are.

    Returns:
        The key, and what was made.

    Raises:
        SettingsError: A file is there and cannot be used.
        OperatorError: No certificate could be made that a panel takes.
    """
    api_key, key_is_new = _api_key(settings)
    if settings.ssl_cert_file is not None:
        return Identity(api_key, key_is_new, cert_is_new=False)
    files = (settings.cert_file, settings.cert_key_file)
    for path in files:
        if path.exists() and not path.is_file():
            raise SettingsError(
                f"{path} is no regular file: move it away, and the node makes a new certificate, or set SSL_CERT_FILE and "
                "SSL_KEY_FILE"
            )
    cert_is_new = not all(path.exists() for path in files)
    if cert_is_new:
        _have_certificate_made(settings)
    return Identity(api_key, key_is_new, cert_is_new or key_is_new)


def note_key_shown(settings: Settings) -> None:
    """Note that the operator has seen the key: it is not shown again."""
    with contextlib.suppress(OSError):
        _unseen(settings).unlink()


def machine_addresses(settings: Settings) -> list[str]:
    """Return the addresses at which the API can be reached from elsewhere, those of IPv4 first."""
    return [str(address) for address in addresses(settings) if not address.is_loopback]


def _unseen(settings: Settings) -> Path:
    return settings.key_file.with_name(f"{settings.key_file.name}.unseen")


def _api_key(settings: Settings) -> tuple[str, bool]:
    if settings.api_key is not None:
        return settings.api_key, False
    path = settings.key_file
    if not path.exists():
        key = str(uuid.uuid4())
        # Before the key: one that nobody saw is shown at the next start, when this one fails.
        with contextlib.suppress(OSError):
            write_atomically(_unseen(settings), "")
        write_private(path, key + "\n", setting="API_KEY_FILE" if settings.api_key_file is not None else "STATE_DIR")
        return key, True
    try:
        return str(uuid.UUID(read_regular(path, _KEY_BYTES).decode().strip())), _unseen(settings).exists()
    except OSError as error:
        raise SettingsError(
            f"{path} cannot be read: {error.strerror}; let this user read it, or move it away and the node makes a new key, or "
            "set API_KEY"
        ) from None
    except ValueError:
        raise SettingsError(
            f"{path} does not hold an API key: allowed is a UUID; delete the file and the node makes a new key, or set API_KEY"
        ) from None


def write_private(
    path: Path, text: str | bytes, owner: tuple[int, int] | None = None, *, setting: str = "STATE_DIR"
) -> None:
    """Write a file that this user alone may read.

    Args:
        path: The file.
        text: What is to be in it.
        owner: Whom it is to belong to (uid, gid); None for this user.
        setting: What says where it is.

    Raises:
        SettingsError: It cannot be written.
    """
    try:
        write_atomically(path, text, owner=owner)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {error.strerror}; {_what_to_do(setting)}") from None


def _what_to_do(setting: str) -> str:
    if setting == "STATE_DIR":
        return "let this user write STATE_DIR and make room there, or choose another folder"
    return f"let this user write in its folder, which has to exist, and make room there, or set {setting} to something else"


def addresses(settings: Settings) -> list[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """Return the addresses at which this machine can be reached, loopback first; as many as a certificate has room for."""
    found = {ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")}
    host = ipaddress.ip_address(settings.node_host)
    if host.is_unspecified:
        for interface in psutil.net_if_addrs().values():
            for address in interface:
                if address.family in (socket.AF_INET, socket.AF_INET6):
                    parsed = ipaddress.ip_address(address.address.partition("%")[0])
                    if not parsed.is_link_local:
                        found.add(parsed)
    else:
        found.add(host)
    # Loopback first, then the shortest: a machine with hundreds of addresses gets the ones a panel would use.
    return sorted(found, key=lambda a: (not a.is_loopback, a.version, int(a)))[:CERT_MAX_ADDRESSES]


def _have_certificate_made(settings: Settings) -> None:
    """Have the node's own certificate made by another process: what that loads are 10 MB, which nobody needs afterwards.

    Args:
        settings: Where it goes.

    Raises:
        SettingsError: It cannot be written.
        OperatorError: It cannot be made, or a panel would not take it.
    """
    try:
        handover = hand_over(settings)
        try:
            done = subprocess.run(
                [sys.executable, "-m", CERTIFICATE_MODULE],
                env={**os.environ, **handover.environment},
                pass_fds=handover.pass_fds,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
                timeout=CERTIFICATE_SECONDS,
            )
        finally:
            os.close(handover.descriptor)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise OperatorError(
            f"the process that makes a certificate cannot be run: {error}; make room, or set SSL_CERT_FILE and SSL_KEY_FILE"
        ) from None
    if done.returncode == 0:
        return
    if done.stdout:
        raise (SettingsError if done.returncode == SettingsError.exit_code else OperatorError)(done.stdout.strip())
    said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    raise OperatorError(f"no certificate could be made: {said}; set SSL_CERT_FILE and SSL_KEY_FILE, or mend this")
