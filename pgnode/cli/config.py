"""``pgnode config``: the settings that count, where each comes from, and what the running node has in their place."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target
from pgnode.settings import Settings, names_in_env_file
from pgnode.settings.shown import shown_settings
from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.supervisor.control.messages import SETTINGS

#: Stands for a setting that the running node does not have.
_UNKNOWN = object()


@dataclass(frozen=True, slots=True)
class ShownSetting:
    """One setting."""

    name: str
    value: Any
    #: Where it comes from: "default", "environment", or a file.
    source: str
    #: What the running node has in its place, as text; None where it has the same, or is not asked.
    running: str | None = None


def show_config(named: Named, *, changed_only: bool = False, json_wanted: bool = False) -> int:
    """Print the settings.

    Args:
        named: What the operator said about which node is meant.
        changed_only: Leave out those that have their defaults.
        json_wanted: Print JSON.

    Returns:
        The exit code.

    Raises:
        OperatorError: It cannot be told which node is meant, or a setting is not allowed.
    """
    target, screen = find_target(named), Screen()
    shown = [
        found
        for found in settings_of(target.settings, sources(target.env_file, named.state_dir), _running(target))
        if not changed_only or found.source != "default" or found.running is not None
    ]
    if json_wanted:
        screen.json([asdict(found) for found in shown])
        return 0
    for found in shown:
        value = "" if found.value is None else _text(found.value)
        tone = Tone.PLAIN if found.running is None else Tone.WARN
        other = f"; the running node has {found.running or 'nothing'}" if tone is Tone.WARN else ""
        screen.line(f"{found.name}={value}  ({found.source}{other})", tone)
    return 0


def _running(target: Target, seconds: float = ASK_SECONDS) -> Mapping[str, Any]:
    """Ask the running node; nothing where none answers."""
    if target.pid is None:
        return {}
    try:
        return ask(target.settings.run_dir, SETTINGS, seconds=seconds)
    except NotAnsweredError:
        return {}


def sources(env_file: Path | None, state_dir: Path | None) -> Mapping[str, str]:
    """Find out where settings come from that are set.

    Args:
        env_file: The file of settings by which the node was found, which wins over the environment; None for none.
        state_dir: The folder that the operator named; None for none.

    Returns:
        Name in capitals -> source.
    """
    known = {name.upper() for name in Settings.model_fields}
    found = dict.fromkeys(names_in_env_file() & known, str(Path.cwd() / ".env"))
    found |= dict.fromkeys({name.upper() for name, value in os.environ.items() if value} & known, "environment")
    if env_file is not None:
        found |= dict.fromkeys(names_in_env_file(env_file) & known, str(env_file))
    if state_dir is not None:
        found["STATE_DIR"] = "--state-dir"
    return found


def settings_of(settings: Settings, sources: Mapping[str, str], running: Mapping[str, Any]) -> Iterator[ShownSetting]:
    """Yield what is shown.

    Args:
        settings: The settings that a start would have now.
        sources: Where they come from.
        running: What the running node has, by name; nothing where none answers.

    Yields:
        A setting each, in the order of their declaration.
    """
    for name, value in shown_settings(settings).items():
        other = running.get(name, _UNKNOWN)
        differs = other is not _UNKNOWN and other != value
        # SSL_CERT_FILE alone, say, is another program's and set aside.
        source = sources.get(name, "default") if value is not None else "default"
        yield ShownSetting(name, value, source, _text(other) if differs else None)


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)
