"""``pgnode import-env``: the settings of PasarGuard's Go node as settings of this one."""

from __future__ import annotations

import os
from pathlib import Path

from pgnode.cli.go_node import HEADS, Line, Verdict, as_json, settings_text, translate
from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.errors import OperatorError
from pgnode.settings.env_file import values_in_env_file

_TONES: dict[Verdict, Tone] = {"same": Tone.GOOD, "differs": Tone.WARN, "nothing": Tone.PLAIN}


def import_env(path: Path, *, write: Path | None = None, json_wanted: bool = False) -> int:
    """Print what becomes of the Go node's settings, or write the file of settings.

    Args:
        path: The Go node's ``.env``.
        write: The file to write; None prints it.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: The file cannot be read, or the new one is there already or cannot be written.
    """
    values, screen = values_in_env_file(path), Screen()
    if not values:
        raise OperatorError(
            f"{path} sets nothing: name the .env file of the Go node, with lines such as SERVICE_PORT=62050"
        )
    lines = translate(values, os.path.exists)
    text = settings_text(lines, str(path))
    if write is not None:
        _write(write, text)
    if json_wanted:
        screen.json(as_json(lines))
    elif write is None:
        for line in text.splitlines():
            screen.line(line)
    else:
        _report(lines, write, screen)
    return 0


def _report(lines: list[Line], written: Path, screen: Screen) -> None:
    for line in lines:
        screen.line(f"{line.name}: {HEADS[line.verdict]}{f': {line.text}' if line.text else ''}", _TONES[line.verdict])
    screen.line(f"{written} is written; next: pgnode doctor --env-file {written}", Tone.GOOD)


def _write(path: Path, text: str) -> None:
    """Write a new file for its owner alone, as it holds a key. Raises OperatorError."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except FileExistsError:
        raise OperatorError(f"{path} is there already: name another file, or move that one away") from None
    except OSError as error:
        raise OperatorError(f"{path} cannot be written: {error.strerror or error}") from None
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OperatorError(f"{path} cannot be written: {error.strerror or error}") from None
