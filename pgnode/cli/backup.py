"""``pgnode backup``: one file with all that makes this node this node, taken while it runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization

from pgnode import __version__
from pgnode.cli.archive import Manifest, describe, write_archive
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.stored import no_state
from pgnode.cli.target import Named, find_target, running_settings
from pgnode.cli.texts import count, size
from pgnode.errors import OperatorError, SettingsError
from pgnode.os_support.fault_points import fault_point
from pgnode.os_support.files import read_regular, sync_folder
from pgnode.os_support.host_name import host_name
from pgnode.settings import Settings
from pgnode.settings.api_key import KEY_BYTES
from pgnode.store.copy import copy_store, owed_bytes
from pgnode.store.schema import VERSION
from pgnode.supervisor.host.certificate import PEM_BYTES_MAX, check_pair
from pgnode.supervisor.host.restored_state import STORE

#: What stands for standard output, or input.
STANDARD: Final = Path("-")

#: How often a certificate and its key are read while they are being renewed.
_PAIR_LOOKS: Final = 5


def back_up(named: Named, file: Path, *, force: bool = False, json_wanted: bool = False) -> int:
    """Write a backup. The node, if it runs, is not held up.

    Args:
        named: What the operator said about which node is meant.
        file: Where to; "-" for standard output.
        force: Replace a file that is there.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: Nothing was written; a file that was there is as it was.
    """
    target = find_target(named)
    # What is said must not get into the backup.
    if target.why:
        say(target.why, error=True)
    settings = running_settings(target)
    try:
        with _target(file, force=force) as (folder, output):
            stored = copy_store(settings.store_path, folder / STORE)
            if stored is None:
                raise no_state(settings, target.pid)
            fault_point("backup.copied")
            left_out = _copy_identity(settings, folder)
            manifest = Manifest(
                pgnode=__version__,
                schema=VERSION,
                made_at=time.time(),
                host=host_name(),
                users=len(stored.users),
                rejected=len(stored.rejected),
                counters=len(stored.counters),
                owed_bytes=owed_bytes(stored),
                certificate=fingerprint(settings.cert_file),
                members=describe(folder),
            )
            write_archive(manifest, folder, output)
            output.flush()
    except OSError as error:
        raise OperatorError(
            f"the backup could not be written: {error.strerror or error} ({error.filename or file}); nothing was left behind"
        ) from None
    holds = [name for name, held in (("config", stored.backend is not None), ("routing", bool(stored.routing))) if held]
    _report(file, manifest, holds, left_out, json_wanted=json_wanted)
    return 0


def fingerprint(path: Path) -> str:
    """Return the SHA-256 of a certificate, hexadecimal; "" where there is none that can be read."""
    try:
        certificate = x509.load_pem_x509_certificate(read_regular(path, PEM_BYTES_MAX))
    except (OSError, ValueError):
        return ""
    return hashlib.sha256(certificate.public_bytes(serialization.Encoding.DER)).hexdigest()


@contextlib.contextmanager
def _target(file: Path, *, force: bool) -> Iterator[tuple[Path, IO[bytes]]]:
    """Give a private folder for what is gathered, and the file; that appears under its name when it is whole. Raises OSError."""
    if file == STANDARD:
        if sys.stdout.isatty():
            raise OperatorError("a backup holds secrets and is no text: it is not written to a terminal")
        with tempfile.TemporaryDirectory(prefix="pgnode-backup-") as name:
            yield Path(name), sys.stdout.buffer
        return
    if file.exists() and not force:
        raise OperatorError(f"{file} is there already: choose another name, or say --force")
    # In the same file system, so that it can be moved. One that was killed left it, with secrets in it.
    folder = file.absolute().with_name(f".{file.name}.part")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    try:
        part = folder / "backup"
        with open(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as output:
            yield folder, output
            output.flush()
            os.fsync(output.fileno())
        fault_point("backup.written")
        part.replace(file)
        sync_folder(file.absolute().parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _copy_identity(settings: Settings, folder: Path) -> list[str]:
    """Copy key and certificate where they are the node's own; return what is not, in words. Raises OSError or OperatorError."""
    left_out = []
    if settings.api_key is not None:
        left_out.append("the key, which is set as API_KEY")
    elif settings.api_key_file is not None:
        left_out.append(f"the key, which is in API_KEY_FILE={settings.api_key_file}")
    else:
        for name in ("api_key.previous", "api_key"):
            _copy(settings.state_dir / name, folder / name, KEY_BYTES)
    if settings.ssl_cert_file is not None:
        left_out.append(f"the certificate, which is in SSL_CERT_FILE={settings.ssl_cert_file}")
        return left_out
    copied = Settings.model_construct(
        ssl_cert_file=folder / "tls" / "cert.pem", ssl_key_file=folder / "tls" / "key.pem"
    )
    for look in range(_PAIR_LOOKS):
        _copy(settings.cert_key_file, copied.cert_key_file, PEM_BYTES_MAX)
        if not _copy(settings.cert_file, copied.cert_file, PEM_BYTES_MAX):
            break
        try:
            check_pair(copied)
            break
        except SettingsError:
            # One of them may have been renewed in between.
            if look == _PAIR_LOOKS - 1:
                raise
    return left_out


def _copy(source: Path, target: Path, max_bytes: int) -> bool:
    """Copy a small file; return whether there is one. Raises OSError."""
    try:
        data = read_regular(source, max_bytes)
    except FileNotFoundError:
        return False
    target.parent.mkdir(mode=0o700, exist_ok=True)
    target.unlink(missing_ok=True)
    with open(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(data)
    return True


def _report(file: Path, manifest: Manifest, holds: list[str], left_out: list[str], *, json_wanted: bool) -> None:
    to_file = file != STANDARD
    said = {
        "file": str(file),
        "users": manifest.users,
        "rejected": manifest.rejected,
        "counters": manifest.counters,
        "owed_bytes": manifest.owed_bytes,
        "holds": holds,
        "members": list(manifest.members),
        "left_out": left_out,
    }
    if json_wanted and to_file:
        Screen().json({**said, "bytes": file.stat().st_size})
        return
    identity = (
        ["key and certificate"]
        if {"api_key", "tls/key.pem"} <= manifest.members.keys()
        else [name for name in manifest.members if name != STORE]
    )
    parts = [
        count(manifest.users, "user"),
        f"{manifest.rejected:,} rejected",
        *holds,
        f"books of {count(manifest.counters, 'counter')}",
        *identity,
    ]
    how_large = f"; {size(file.stat().st_size)}" if to_file else ""
    say(f"written: {', '.join(parts)}{how_large}", error=not to_file)
    for what in left_out:
        say(f"not in it: {what}", error=not to_file)
    say("whoever has this file can be this node: keep it as you keep its key", error=not to_file)
