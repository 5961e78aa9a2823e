"""Checks of files and folders for ``pgnode doctor`` and ``check-config``: each says what it found and what to do."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from pgnode.cli.facts import seen_disk
from pgnode.cli.findings import Finding, fail, ok, warn
from pgnode.cli.texts import size
from pgnode.cli.verdict import DISK_BYTES, DISK_FILES
from pgnode.errors import SettingsError, StartFailedError
from pgnode.settings import Settings, read_api_key
from pgnode.settings.previous_key import previous_key_file
from pgnode.supervisor.host.running_nodes import user_name
from pgnode.supervisor.lifecycle.run_spec import egress_of


def check_state_dir(settings: Settings) -> Iterator[Finding]:
    """Look at the rights of the state folder and of what opens the node."""
    folder = settings.state_dir
    try:
        found = folder.stat()
    except OSError as error:
        yield _can_be_made(folder, error)
        return
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        yield fail(f"others may look into {folder} (mode {mode:03o})", f"chmod 700 {folder}")
    else:
        yield ok(f"{folder} is for user {user_name(found.st_uid)} alone")
    if not os.access(folder, os.W_OK):
        yield fail(f"this user may not write {folder}", f"be user {user_name(found.st_uid)}")
    for path in (settings.key_file, previous_key_file(settings), settings.cert_key_file):
        with contextlib.suppress(OSError):
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & 0o077:
                yield fail(f"others may read {path} (mode {mode:03o})", f"chmod 600 {path}")


def _can_be_made(folder: Path, error: OSError) -> Finding:
    """Find out whether a start could make a folder that is not there."""
    if not isinstance(error, FileNotFoundError):
        return fail(f"{folder}: {error.strerror}", "set STATE_DIR to a folder that this user may write")
    above = next(path for path in folder.parents if path.exists())
    if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
        return fail(f"{folder} is not there, and this user may not make it in {above}", "make it, or set STATE_DIR")
    return warn(f"{folder}: {error.strerror}", "it is made at the first start")


def check_key(settings: Settings) -> Finding | None:
    """Look whether the file of the API key has one, or can be made.

    Args:
        settings: Where it is.

    Returns:
        What was found; None where there is nothing to look at.
    """
    if settings.api_key is not None:
        return None
    file = settings.key_file
    if file.exists():
        try:
            read_api_key(settings)
        except SettingsError as error:
            return fail(str(error), "put a UUID into it, or remove it: the next start makes one")
        return ok(f"{file} has a key")
    if settings.api_key_file is not None and not os.access(file.parent, os.W_OK | os.X_OK):
        what = "there is no" if not file.parent.exists() else "this user may not write"
        return fail(
            f"API_KEY_FILE={file} cannot be made: {what} {file.parent}", "make that folder, or set API_KEY_FILE"
        )
    return None


def check_paths(settings: Settings) -> Iterator[Finding]:
    """Look at what other settings name. The node goes on without it, so each is a warning.

    Args:
        settings: The paths.

    Yields:
        What was found, of those that are set.
    """
    if (folder := settings.log_dir) is not None:
        yield _written("LOG_DIR", folder, folder, "log files that a config names are not written")
    if (copy := settings.generated_config_path) is not None:
        folder = copy if copy.is_dir() else copy.parent
        yield _written("GENERATED_CONFIG_PATH", copy, folder, "no copy of the core's config is written")
    if settings.wg_egress_outbound_file is not None:
        try:
            egress_of(settings)
        except StartFailedError as error:
            yield warn(f"{error.text}, so no core of type WIREGUARD starts", "put one outbound into it, or unset it")
        else:
            yield ok(f"WG_EGRESS_OUTBOUND_FILE={settings.wg_egress_outbound_file} has an outbound")


def _written(name: str, path: Path, folder: Path, lost: str) -> Finding:
    """Find out whether this user may write into a folder, which need not be there yet."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if there.is_dir() and os.access(there, os.W_OK | os.X_OK):
        return ok(f"{name}={path} can be written")
    why = f"this user may not write {there}" if there.is_dir() else f"{there} is no folder"
    return warn(f"{name}={path}: {why}, so {lost}", f"set {name} to a path that the node may write")


def check_disk(settings: Settings) -> Iterator[Finding]:
    """Look at the room on the disk of the state folder."""
    disk = seen_disk(settings.state_dir)
    if disk is None:
        return
    text = f"the disk of {settings.state_dir} has {size(disk.free_bytes)} free"
    if disk.free_files is not None and disk.free_files < DISK_FILES:
        yield fail(f"{text}, and room for {disk.free_files:,} files", "remove files")
    elif disk.free_bytes < DISK_BYTES:
        yield fail(text, "make room")
    else:
        yield ok(text)
