"""``pgnode restore``: a node that is stopped becomes what a backup says, wholly or not at all."""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path
from typing import IO, Literal

from pgnode.cli.archive import Manifest, read_archive
from pgnode.cli.backup import STANDARD, fingerprint
from pgnode.cli.facts import seen_core
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target
from pgnode.cli.texts import count, duration, size
from pgnode.errors import OperatorError, SettingsError, StateDirBusyError, StoreUnusableError
from pgnode.os_support.fault_points import fault_point
from pgnode.settings import Settings, read_api_key
from pgnode.settings.checks import check_uuid
from pgnode.store.copy import prepare_restored
from pgnode.store.reader import read_state
from pgnode.store.state import StoredState
from pgnode.supervisor.host.certificate import check_pair
from pgnode.supervisor.host.identity import lock_state_dir, prepare_state_dir
from pgnode.supervisor.host.restored_state import BEFORE, GATHERING, STORE, finish_restore, make_ready

#: What becomes of traffic that had been counted and not reported when a backup was made.
Owed = Literal["drop", "keep"]


def restore(
    named: Named,
    file: Path,
    *,
    owed: Owed = "drop",
    with_identity: bool = True,
    foreign: bool = False,
    json_wanted: bool = False,
) -> int:
    """Restore a backup.

    Args:
        named: What the operator said about which node is meant.
        file: The backup; "-" for standard input.
        owed: What becomes of traffic that the backup's books have as counted and not reported.
        with_identity: Take key and certificate, too.
        foreign: Also where the folder is another node's.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: Nothing was changed; the text says why.
    """
    target = find_target(named)
    settings = target.settings
    if target.why and not json_wanted:
        say(target.why)
    _require_stopped(target)
    prepare_state_dir(settings)
    with lock_state_dir(settings):
        try:
            # One that was killed before its end, and had decided.
            finish_restore(settings.state_dir)
            restored = _Restore(settings, owed, with_identity=with_identity, foreign=foreign)
            restored.gather(file)
            make_ready(settings.state_dir)
            finish_restore(settings.state_dir)
        except OSError as error:
            raise OperatorError(
                f"{file} could not be restored: {error.strerror or error} ({error.filename or settings.state_dir}); nothing was "
                "changed"
            ) from None
        finally:
            shutil.rmtree(settings.state_dir / GATHERING, ignore_errors=True)
            _give_to_owner(settings.state_dir)
        note(settings, "node", "restored from a backup", {"file": str(file), "owed": owed, "identity": with_identity})
        core = seen_core(settings)
    restored.report(file, core.pid if core is not None else None, json_wanted=json_wanted)
    return 0


def _require_stopped(target: Target) -> None:
    """Make sure that no node runs with this folder. Raises StateDirBusyError."""
    if target.pid is not None:
        raise StateDirBusyError(
            f"a node runs with STATE_DIR={target.settings.state_dir} (pid {target.pid}): stop it, then restore"
        )


class _Restore:
    """One restore, up to the moment at which it is decided."""

    def __init__(self, settings: Settings, owed: Owed, *, with_identity: bool, foreign: bool) -> None:
        self._settings = settings
        self._owed = owed
        self._with_identity = with_identity
        self._foreign = foreign
        self._folder = settings.state_dir / GATHERING
        self._manifest: Manifest | None = None
        #: Whether the books of the folder go on.
        self._own_books = False
        self._left: list[str] = []

    def gather(self, file: Path) -> None:
        """Gather everything, and check it. Raises OperatorError or OSError."""
        self._folder.mkdir(mode=0o700)
        if file == STANDARD:
            manifest = self._read(sys.stdin.buffer, "standard input")
        else:
            with file.open("rb") as source:
                manifest = self._read(source, str(file))
        fault_point("restore.read")
        same = self._is_same_node(manifest)
        if same is False and not self._foreign:
            raise OperatorError(
                f"STATE_DIR={self._settings.state_dir} is another node's than this backup (of {manifest.host}): key and "
                "certificate are others. Say --foreign to make it that node, and keep a backup of what is there"
            )
        self._check_identity()
        books = self._books() if same else None
        prepare_restored(self._folder / STORE, books=books, keep_owed=self._owed == "keep")
        self._own_books = books is not None
        self._manifest = manifest

    def _read(self, source: IO[bytes], name: str) -> Manifest:
        manifest = read_archive(source, self._folder, name)
        # Its version first: one of a newer node is not damaged.
        read_state(self._folder / STORE)
        return manifest

    def _is_same_node(self, manifest: Manifest) -> bool | None:
        """Whether the folder is of the same node; None where it is nobody's yet. Raises OperatorError."""
        settings = self._settings
        present = fingerprint(settings.cert_file)
        if present and present == manifest.certificate:
            return True
        key = self._folder / "api_key"
        try:
            current = read_api_key(settings) if settings.api_key is not None or settings.key_file.exists() else ""
        except SettingsError:
            current = ""
        if current and key.exists():
            return current == _read_key(key)
        return False if present or settings.store_path.exists() else None

    def _check_identity(self) -> None:
        """Leave out what is not wanted, or has no place here; check the rest. Raises OperatorError or OSError."""
        settings, folder = self._settings, self._folder
        keys, pair = (
            [folder / "api_key", folder / "api_key.previous"],
            [folder / "tls/cert.pem", folder / "tls/key.pem"],
        )
        if not self._with_identity:
            self._leave(keys + pair, "key and certificate stay as they are here")
            return
        if settings.api_key is not None or settings.api_key_file is not None:
            self._leave(keys, "the key stays the one that the settings name")
        if settings.ssl_cert_file is not None:
            self._leave(pair, "the certificate stays the one that the settings name")
        if keys[0].exists():
            _read_key(keys[0])
        if pair[0].exists():
            check_pair(Settings.model_construct(ssl_cert_file=pair[0], ssl_key_file=pair[1]))

    def _leave(self, paths: list[Path], why: str) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        self._left.append(why)

    def _books(self) -> StoredState | None:
        """Return what the folder's own store says; None where it says nothing."""
        try:
            return read_state(self._settings.store_path)
        except StoreUnusableError:
            return None

    def report(self, file: Path, core: int | None, *, json_wanted: bool) -> None:
        """Say what was done.

        Args:
            file: The backup.
            core: The pid of a core that still runs in this folder; None for none.
            json_wanted: Print JSON.
        """
        manifest = self._manifest
        assert manifest is not None
        age = max(0.0, time.time() - manifest.made_at)
        before = self._settings.state_dir / BEFORE
        kept = str(before) if before.is_dir() else None
        if json_wanted:
            Screen().json(
                {
                    "users": manifest.users,
                    "rejected": manifest.rejected,
                    "made_at": manifest.made_at,
                    "books": "of this folder" if self._own_books else self._owed,
                    "owed_bytes": manifest.owed_bytes,
                    "before": kept,
                    "core_pid": core,
                    "left": self._left,
                }
            )
            return
        say(
            f"restored from {file}: {count(manifest.users, 'user')}, {manifest.rejected:,} rejected, as it was "
            f"{duration(age)} ago, in {self._settings.state_dir}"
        )
        for line in (self._of_traffic(manifest), *self._left):
            say(line)
        if core is not None:
            say(
                f"a core still runs here (pid {core}): the next start takes it over where it has the restored config, and "
                "replaces it otherwise, which ends its connections"
            )
        if kept is not None:
            say(f"what was here before is in {kept}: remove it when all is well")
        say("start the node now; its panel then brings it up to date")

    def _of_traffic(self, manifest: Manifest) -> str:
        if self._own_books:
            return "traffic: the books of this folder go on, so nothing is lost or counted twice"
        owed = size(manifest.owed_bytes)
        if self._owed == "keep":
            return f"traffic: {owed} that were owed then are reported once more, where they were reported since"
        return f"traffic: {owed} that were owed then may have been reported since: they count as reported (see --owed)"


def _read_key(path: Path) -> str:
    """Return the key of a backup. Raises OperatorError."""
    try:
        return check_uuid(path.read_text(encoding="ascii"))
    except ValueError:
        raise OperatorError("the key in this backup is no UUID: restore it with --without-identity") from None


def _give_to_owner(folder: Path) -> None:
    """Where root restores another user's node, let everything be that user's. Best effort: a start names what is not."""
    if os.geteuid() != 0:
        return
    found = folder.stat()
    for path in folder.rglob("*"):
        try:
            now = path.lstat()
            if now.st_uid == 0 and found.st_uid != 0:
                os.chown(path, found.st_uid, found.st_gid, follow_symlinks=False)
        except OSError:
            continue
