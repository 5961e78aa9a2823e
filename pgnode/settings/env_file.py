"""The ``.env`` file in the working folder: which names stand in it, and whether it can be read at all."""

from __future__ import annotations

from pathlib import Path

from dotenv import dotenv_values

from pgnode.errors import SettingsError

#: The name of the file, in the working folder.
ENV_FILE = ".env"


def names_in_env_file(folder: Path | None = None) -> frozenset[str]:
    """Read which variables the ``.env`` file sets.

    Args:
        folder: The folder that it is in; the working folder where it is None.

    Returns:
        Their names in capitals; none where there is no such file.

    Raises:
        SettingsError: It cannot be read.
    """
    path = (folder or Path()) / ENV_FILE
    try:
        if not path.is_file():
            return frozenset()
        found = dotenv_values(path, encoding="utf-8", interpolate=False)
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{path.absolute()} is not UTF-8 (line {line} or later): save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"{path.absolute()} cannot be read: {error.strerror}; let this user read it, or start pgnode in another folder"
        ) from None
    return frozenset(name.upper() for name in found)
