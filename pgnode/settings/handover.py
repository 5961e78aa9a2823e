"""The settings of a running node, handed to its workers: they have what the supervisor has, whatever is edited meanwhile.

They go through an open file without a name that workers inherit: it is in no folder, no command line and no environment, since
the API key is in it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from pgnode.errors import SettingsError
from pgnode.os_support.lean_start import CHECKED_VARIABLE
from pgnode.settings.derived import DerivedSettings

if TYPE_CHECKING:
    from pgnode.settings.model import Settings

#: Tells a worker the number of the descriptor.
VARIABLE: Final = "PGNODE_SETTINGS_FD"

#: Tells Gunicorn the numbers of the sockets that it listens on, with commas between them.
SOCKETS_VARIABLE: Final = "PGNODE_SOCKET_FDS"

#: Tells Gunicorn's workers the number of the descriptor to which they write a byte when they are there.
READY_VARIABLE: Final = "PGNODE_READY_FD"

#: Says that workers have no supervisor beside them, and of which kind they are (``pgnode worker``).
ALONE_VARIABLE: Final = "PGNODE_WORKER_ALONE"

#: Tells such workers the file of settings that they were started with.
FILE_VARIABLE: Final = "PGNODE_WORKER_ENV_FILE"

#: Tells a trial of another version the number of the descriptor of the environment that it would be started with.
ENVIRONMENT_VARIABLE: Final = "PGNODE_ENVIRONMENT_FD"


@dataclass(frozen=True, slots=True)
class Checked:
    """What was found before a supervisor begins, by what is of no use to it afterwards."""

    settings: Settings
    #: The file that some of them are from; None for none.
    env_file: Path | None
    #: What the operator has to be told.
    sentences: Sequence[str]


@dataclass(frozen=True, slots=True)
class Handover:
    """What a worker needs to read the settings: a descriptor to inherit, and its number in the environment."""

    descriptor: int

    @property
    def environment(self) -> Mapping[str, str]:
        """The variable that names the descriptor."""
        return {VARIABLE: str(self.descriptor)}

    @property
    def pass_fds(self) -> tuple[int, ...]:
        """The descriptors that a worker inherits."""
        return (self.descriptor,)


class HandedOver(DerivedSettings):
    """Settings as a worker has them: it has every field and every property that a worker may ask for, and no checks.

    Args:
        values: The fields by name.
    """

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.__dict__.update(values)

    def __repr__(self) -> str:
        return f"HandedOver({len(self.__dict__)} settings)"

    def __setattr__(self, name: str, _value: object) -> None:
        raise AttributeError(f"{name} cannot be set: settings that were handed over stay as they are")

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        """Yield each field with its value, as settings do."""
        return iter(self.__dict__.items())


def runs_alone() -> bool:
    """Whether this is a worker without a supervisor beside it."""
    return ALONE_VARIABLE in os.environ


def hand_over(settings: Settings, folder: Path | None = None) -> Handover:
    """Write the settings where workers find them.

    Args:
        settings: The settings, checked.
        folder: Where a file may be made where there is no memory for it; None for the folder of sockets.

    Returns:
        How a worker gets them. The descriptor stays open for as long as workers may be started.

    Raises:
        OSError: There is neither memory nor a folder for such a file.
    """
    return Handover(_unnamed_file(_encode(settings), folder or settings.run_dir))


def write_settings(settings: Settings, descriptor: int) -> None:
    """Write settings into a file that is open, for whoever made it.

    Args:
        settings: The settings, checked.
        descriptor: The file's.

    Raises:
        OSError: It cannot be written.
    """
    os.write(descriptor, _encode(settings))


def hand_over_environment(environment: Mapping[str, str], folder: Path) -> int:
    """Write an environment where a trial of another version finds it; the trial's own holds no secret.

    Args:
        environment: The environment of the start.
        folder: Where a file may be made where there is no memory for it.

    Returns:
        The descriptor, for the caller to close.

    Raises:
        OSError: There is neither memory nor a folder for such a file.
    """
    return _unnamed_file(json.dumps(dict(environment)).encode(), folder)


def take_environment(environment: MutableMapping[str, str]) -> None:
    """Lay the environment that was handed over, if there is one, over this process's.

    Args:
        environment: This process's environment; it is changed.

    Raises:
        SettingsError: The descriptor that was named holds none.
    """
    number = environment.pop(ENVIRONMENT_VARIABLE, None)
    if number is None:
        return
    try:
        environment.update(json.loads(_read(int(number))))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{ENVIRONMENT_VARIABLE}={number} does not hold an environment ({error}): it is set by the supervisor; unset it"
        ) from None


def hand_on(checked: Checked) -> int:
    """Write what was checked where the next program of this process finds it.

    Args:
        checked: What was found.

    Returns:
        The descriptor, which goes on at an exec.

    Raises:
        OSError: There is neither memory nor a folder for such a file.
    """
    document = {
        "settings": _plain(checked.settings),
        "env_file": None if checked.env_file is None else str(checked.env_file),
        "sentences": list(checked.sentences),
    }
    descriptor = _unnamed_file(json.dumps(document).encode(), Path(tempfile.gettempdir()))
    os.set_inheritable(descriptor, True)
    return descriptor


def take_checked(environment: MutableMapping[str, str]) -> Checked:
    """Take what the program before this one in this process has checked.

    Args:
        environment: This process's environment; the variable is taken out of it.

    Returns:
        What it found.

    Raises:
        SettingsError: The descriptor that was named holds none of it.
    """
    number = environment.pop(CHECKED_VARIABLE)
    try:
        with os.fdopen(int(number), "rb") as file:
            file.seek(0)
            document = json.loads(file.read())
        env_file = document["env_file"]
        return Checked(
            _settings_of(document["settings"]),
            None if env_file is None else Path(env_file),
            document["sentences"],
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise SettingsError(
            f"{CHECKED_VARIABLE}={number} does not hold settings ({error!r}): it is set by pgnode for itself; unset it"
        ) from None


def load_handed_over() -> Settings:
    """Read the settings that the supervisor handed over; a worker that was started by hand reads its own.

    Returns:
        The settings.

    Raises:
        SettingsError: The descriptor that was named holds none, or a value of its own is not allowed.
    """
    number = os.environ.get(VARIABLE)
    if number is None:
        from pgnode.settings.loading import load  # noqa: PLC0415 - which no worker of a supervisor needs

        return load()
    try:
        return _decode(_read(int(number)))
    except (OSError, ValueError, TypeError) as error:
        raise SettingsError(
            f"{VARIABLE}={number} does not hold settings ({error}): it is set by the supervisor for its workers; unset it"
        ) from None


def _unnamed_file(data: bytes, folder: Path) -> int:
    try:
        descriptor = os.memfd_create("pgnode-settings")
    except (AttributeError, OSError):
        # Where the call is forbidden: a file without a name.
        with tempfile.TemporaryFile(dir=folder) as file:
            descriptor = os.dup(file.fileno())
    os.write(descriptor, data)
    return descriptor


def _read(descriptor: int) -> bytes:
    # By position: all workers share the descriptor.
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _encode(settings: Settings) -> bytes:
    return json.dumps(_plain(settings)).encode()


def _plain(settings: Settings) -> dict[str, Any]:
    return {name: {"path": str(value)} if isinstance(value, Path) else value for name, value in settings}


def _decode(data: bytes) -> Settings:
    return _settings_of(json.loads(data))


def _settings_of(plain: Mapping[str, Any]) -> Settings:
    values: dict[str, Any] = {
        name: Path(value["path"]) if isinstance(value, dict) else value for name, value in plain.items()
    }
    # They were checked once; a file that has gone since must not keep a worker from its start.
    return cast("Settings", HandedOver(values))
