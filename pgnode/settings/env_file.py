"""The ``.env`` file in the working folder: whether it can be read at all, and which names stand in it."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from pgnode.errors import SettingsError
from pgnode.os_support.files import kind_of, read_regular

#: The file, in the working folder.
ENV_FILE: Final = Path(".env")

#: Its bytes, at most.
ENV_FILE_BYTES: Final = 1024 * 1024

_NAME = re.compile(r"(export[ \t]+)?(?P<name>[A-Za-z_][A-Za-z0-9_]*)")

# It would say of faulty lines, each time it reads them, that there are some, and not where.
logging.getLogger("dotenv").setLevel(logging.ERROR)


def usable_env_file(path: Path = ENV_FILE) -> Path | None:
    """Return the file of settings in the working folder.

    Args:
        path: The file.

    Returns:
        The same; None where there is none, or where that folder may not be looked into.

    Raises:
        SettingsError: It is there and cannot be read.
    """
    return path if _text(path) is not None else None


def names_in_env_file(path: Path = ENV_FILE) -> frozenset[str]:
    """Read which variables the file sets.

    Args:
        path: The file.

    Returns:
        Their names in capitals; none where there is no such file.

    Raises:
        SettingsError: It cannot be read.
    """
    text = _text(path)
    if text is None:
        return frozenset()
    return frozenset(name.upper() for name in dotenv_values(stream=io.StringIO(text), interpolate=False))


def values_in_env_file(path: Path) -> dict[str, str]:
    """Read a file of settings that was named.

    Args:
        path: The file.

    Returns:
        Names in capitals and their values; a name without a value is left out.

    Raises:
        SettingsError: It is not there, or cannot be read.
    """
    text = _text(path)
    if text is None:
        raise SettingsError(_why_not(path))
    found = dotenv_values(stream=io.StringIO(text), interpolate=False)
    return {name.upper(): value for name, value in found.items() if value is not None}


@dataclass(frozen=True, slots=True)
class FaultyLine:
    """A line, or several within one quote, that sets nothing."""

    #: From 1 on.
    number: int
    #: What it begins with that could be a name, in capitals; "" for nothing of the kind.
    name: str


def faulty_lines(path: Path = ENV_FILE) -> list[FaultyLine]:
    """Find what is neither a setting nor a remark; a semicolon begins a remark, too, as it does for systemd.

    Args:
        path: The file.

    Returns:
        The lines; none where there is no such file.

    Raises:
        SettingsError: It cannot be read.
    """
    found: list[FaultyLine] = []
    for binding in parse_stream(io.StringIO(_text(path) or "")):
        written = binding.original.string
        line = written.lstrip()
        if binding.error and not line.startswith(";"):
            name = _NAME.match(line)
            number = binding.original.line + written[: len(written) - len(line)].count("\n")
            found.append(FaultyLine(number, name["name"].upper() if name is not None else ""))
    return found


def _why_not(path: Path) -> str:
    """Say why a file that was named is none."""
    kind = ""
    with contextlib.suppress(OSError):
        kind = kind_of(path)
    if kind:
        return f"{path} is {kind}, and has to be a file of lines such as SERVICE_PORT=62050"
    return f"{path} cannot be read: there is no such file, or this user may not look into its folder"


def _text(path: Path) -> str | None:
    try:
        kind = path.stat().st_mode
    except OSError:
        return None
    if not stat.S_ISREG(kind) and not stat.S_ISFIFO(kind):
        return None
    where = Path.cwd() / path
    try:
        text = read_regular(path, ENV_FILE_BYTES).decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SettingsError(f"{where} is not UTF-8 (line {line}): save it as UTF-8") from None
    except OSError as error:
        raise SettingsError(
            f"{where} cannot be read: {error.strerror}; let this user read it, or start the node in another folder"
        ) from None
    if "\0" in text:
        raise SettingsError(f"{where} holds a NUL character: it is a file of lines such as SERVICE_PORT=62050")
    return text
