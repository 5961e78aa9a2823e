"""Which node a command is about: one that was named, the one of this environment, or the only one that runs here."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pgnode.cli.output import say
from pgnode.errors import ArgumentError, OperatorError, SettingsError
from pgnode.os_support.files import kind_of
from pgnode.settings import Settings, load_from, names_in_env_file
from pgnode.settings.derived import SECRET_FIELDS
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.supervisor.control.messages import SETTINGS
from pgnode.supervisor.host.node_lock import running_pid
from pgnode.supervisor.host.running_nodes import RunningNode, running_nodes, user_name

#: Settings that a running node tells.
TOLD = frozenset(Settings.model_fields) - SECRET_FIELDS


@dataclass(frozen=True, slots=True)
class Named:
    """What the operator said about the node."""

    #: Stands for a file of settings in /etc/pgnode.
    node: str | None = None
    env_file: Path | None = None
    state_dir: Path | None = None


@dataclass(frozen=True, slots=True)
class Places:
    """Where services keep what is theirs."""

    #: The file of settings of the one node, and the folder of those of several.
    env_file: Path = Path("/etc/pgnode.env")
    env_folder: Path = Path("/etc/pgnode")
    #: The state folder of the one node; those of several are in it.
    state_dir: Path = Path("/var/lib/pgnode")


@dataclass(frozen=True, slots=True)
class Target:
    """The node that is meant."""

    settings: Settings
    #: Its supervisor; None where it does not run.
    pid: int | None
    #: Why it is this one, where nobody named it; "" where that goes without saying.
    why: str = ""
    #: The file of settings that it was found by; None for none.
    env_file: Path | None = None


def find_target(
    named: Named,
    places: Places = Places(),
    running: Callable[[], Sequence[RunningNode]] = running_nodes,
) -> Target:
    """Find the node that is meant.

    Args:
        named: What the operator said.
        places: Where services keep what is theirs.
        running: Finds the nodes that run on this machine.

    Returns:
        The node.

    Raises:
        OperatorError: It cannot be told which one is meant, or it may not be looked at.
    """
    if named.node is not None:
        return _of_service(named, places)
    if named.env_file is not None or named.state_dir is not None or _is_named_here():
        return _target(load_from(named.env_file, **_folder(named.state_dir)), env_file=named.env_file)
    usual = _target(load_from(None))
    if usual.pid is not None:
        return usual
    others = running()
    if len(others) > 1:
        shown = "\n".join(f"  {other}" for other in others)
        raise OperatorError(f"several nodes run here: say which one with --state-dir\n{shown}")
    if others:
        [other] = others
        why = f"the node that runs here: {other}"
        return Target(_other(other.state_dir, places), other.pid, why, _file_of(other.state_dir, places))
    if not usual.settings.store_path.exists() and places.state_dir.is_dir():
        why = f"the service's node: STATE_DIR={places.state_dir}"
        return _target(_other(places.state_dir, places), why, _file_of(places.state_dir, places))
    return usual


def _is_named_here() -> bool:
    """Whether this environment, or .env in this folder, says which node it is."""
    return bool(os.environ.get("STATE_DIR")) or "STATE_DIR" in names_in_env_file()


def service_file(name: str, places: Places = Places()) -> Path:
    """Return the file with the settings of a service that is one of several.

    Args:
        name: Its name.
        places: Where services keep what is theirs.

    Returns:
        The file.

    Raises:
        ArgumentError: The name is none, or there is no such service.
    """
    if "/" in name or name.startswith("."):
        raise ArgumentError(
            f"--node {name} is not allowed: it is the name of a file in {places.env_folder}, without .env"
        )
    file = places.env_folder / f"{name}.env"
    if not file.exists():
        known = ", ".join(sorted(path.stem for path in places.env_folder.glob("*.env"))) or "none"
        raise ArgumentError(f"--node {name}: there is no {file}; nodes there: {known}")
    return file


def _of_service(named: Named, places: Places) -> Target:
    """Return the node of a service that is one of several. Raises OperatorError."""
    name = str(named.node)
    file = service_file(name, places)
    chosen = _folder(named.state_dir)
    if not chosen and "STATE_DIR" not in names_in_env_file(file):
        chosen = _folder(places.state_dir / name)
    return _target(load_from(named.env_file or file, **chosen), env_file=named.env_file or file)


def _other(state_dir: Path, places: Places) -> Settings:
    """Return the settings of a node in another folder: those of the service where it is the service's."""
    return load_from(_file_of(state_dir, places), **_folder(state_dir))


def _file_of(state_dir: Path, places: Places) -> Path | None:
    """Return the file with the settings of the service with this folder; None where there is none that may be read."""
    file: Path | None = places.env_file if state_dir == places.state_dir else None
    if state_dir.parent == places.state_dir:
        file = places.env_folder / f"{state_dir.name}.env"
    return file if file is not None and os.access(file, os.R_OK) else None


def _folder(state_dir: Path | None) -> dict[str, str]:
    return {"state_dir": str(state_dir)} if state_dir is not None else {}


def _target(settings: Settings, why: str = "", env_file: Path | None = None) -> Target:
    require_access(settings)
    return Target(settings, running_pid(settings), why, env_file)


def require_access(settings: Settings) -> None:
    """Make sure that the state folder may be looked into.

    Args:
        settings: The folder.

    Raises:
        OperatorError: It may not: the folder is another user's.
    """
    folder = settings.state_dir
    try:
        found = folder.stat()
    except PermissionError:
        raise OperatorError(f"STATE_DIR={folder} may not be looked into: be the user of the node, or root") from None
    except OSError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise SettingsError(
            f"STATE_DIR={folder} is {kind_of(folder)}, and has to be a folder: set STATE_DIR to another"
        )
    if not os.access(folder, os.R_OK | os.X_OK):
        raise OperatorError(
            f"STATE_DIR={folder} is for user {user_name(found.st_uid)} alone: be that user (sudo -u {user_name(found.st_uid)} "
            "pgnode …), or root"
        )


def find_with_settings(named: Named) -> tuple[Target, Settings]:
    """Find the node that is meant, say which one it is where nobody named it, and what settings it runs with.

    Args:
        named: What the operator said.

    Returns:
        The node, and its settings.

    Raises:
        OperatorError: It cannot be told which one is meant, or it may not be looked at.
    """
    target = find_and_say(named)
    return target, running_settings(target)


def find_and_say(named: Named) -> Target:
    """Find the node that is meant, and say which one it is where nobody named it. Raises OperatorError."""
    target = find_target(named)
    if target.why:
        # What is printed may be for a program.
        say(target.why, error=True)
    return target


def running_settings(target: Target, *, seconds: float = ASK_SECONDS) -> Settings:
    """Return the settings that a node runs with: it may have been started with others than there are now.

    Args:
        target: The node.
        seconds: Seconds that its supervisor has to answer.

    Returns:
        Its settings, but for secrets, which it does not tell; those that there are now where it does not answer.
    """
    return settings_of(target, told_settings(target, seconds=seconds))


def told_settings(target: Target, *, seconds: float = ASK_SECONDS) -> dict[str, Any]:
    """Return what a node's supervisor says of its settings, by name; nothing where it does not run or does not answer."""
    if target.pid is None:
        return {}
    try:
        return ask(target.settings.run_dir, SETTINGS, seconds=seconds)
    except NotAnsweredError:
        return {}


def settings_of(target: Target, said: Mapping[str, Any]) -> Settings:
    """Return the settings that a node runs with.

    Args:
        target: The node.
        said: What its supervisor says of them.

    Returns:
        The settings; those that there are now where it said nothing.
    """
    if not said:
        return target.settings
    try:
        values = {name.lower(): value for name, value in said.items() if name.lower() in TOLD}
        return load_from(None, **values).model_copy(
            update={name: getattr(target.settings, name) for name in SECRET_FIELDS}
        )
    except SettingsError:
        # It is of another version.
        return target.settings
