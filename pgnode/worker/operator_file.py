"""GUNICORN_CONF as it is run: once at the start, and again at each reload of Gunicorn (SIGHUP to its master).

A file that cannot be used any more must not end the master, and the API with it: then what it said before stays in force.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pgnode.errors import SettingsError
from pgnode.settings.gunicorn_file import OWNED, check_gunicorn_file
from pgnode.worker.gunicorn_settings import check_setting, known_settings


class OperatorFile:
    """What the operator's file set when it was run last and could be used."""

    def __init__(self) -> None:
        self._last: Mapping[str, Any] | None = None

    def __repr__(self) -> str:
        """Say what is in force."""
        return f"OperatorFile({'not run yet' if self._last is None else sorted(self._last)})"

    def run(self, path: Path, names: Mapping[str, Any], tell: Callable[[str], None]) -> Mapping[str, Any]:
        """Run the file, and return which of Gunicorn's settings it sets.

        Args:
            path: The file.
            names: The node's own settings for Gunicorn, which the file may use.
            tell: Gets a sentence where the file cannot be used, and what it set before stays.

        Returns:
            Value by setting.

        Raises:
            SettingsError: It cannot be used, and never could.
        """
        try:
            found = _run(path, names)
        except ValueError as error:
            if self._last is None:
                raise SettingsError(f"GUNICORN_CONF={path}: {error}") from None
            tell(f"GUNICORN_CONF={path}: {error}; what it said before stays in force")
            return self._last
        self._last = found
        return found


def _run(path: Path, names: Mapping[str, Any]) -> dict[str, Any]:
    check_gunicorn_file(path)
    ours = {name: value for name, value in names.items() if not name.startswith("__")}
    found = {"__file__": str(path), "__name__": "gunicorn_conf", **ours}
    try:
        exec(compile(path.read_bytes(), str(path), "exec"), found)  # noqa: S102 - it is the operator's own file
    except (Exception, SystemExit) as error:
        raise ValueError(f"it failed with {type(error).__name__}: {error}") from None
    known = known_settings()
    new = {name: value for name, value in found.items() if name in known and value is not ours.get(name)}
    for name, value in new.items():
        if name in OWNED:
            raise ValueError(f"it sets {name}, which is the node's own: {OWNED[name]}")
        try:
            check_setting(name, value)
        except ValueError as error:
            raise ValueError(f"it sets {name} to {value!r:.100}, which Gunicorn does not take: {error}") from None
    return new


#: The one of this process: Gunicorn runs its configuration anew at each reload, and this module only once.
operator_file = OperatorFile()
