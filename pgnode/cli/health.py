"""``pgnode health``: one question, one exit code, for HEALTHCHECK and scripts. Knows no library, so that it costs little."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pgnode.supervisor.control.client import ASK_SECONDS, NotAnsweredError, ask
from pgnode.supervisor.control.messages import STATUS

#: What is asked for.
Kind = Literal["live", "ready", "core"]


def show_health(
    kind: Kind,
    *,
    node: str | None = None,
    env_file: Path | None = None,
    state_dir: Path | None = None,
    quiet: bool = False,
    json_wanted: bool = False,
    ask_seconds: float = ASK_SECONDS,
) -> int:
    """Say whether a node is healthy.

    Args:
        kind: ``live``: its supervisor answers. ``ready``: the API works, and the core is up where one has to be. ``core``:
            the core is up.
        node: See :class:`pgnode.cli.target.Named`.
        env_file: The same.
        state_dir: The same.
        quiet: Print nothing.
        json_wanted: Print JSON.
        ask_seconds: Seconds that its supervisor has to answer.

    Returns:
        The exit code: 0 or 1.

    Raises:
        OperatorError: It cannot be told which node is meant.
    """
    folder = _run_dir(node, env_file, state_dir)
    try:
        because = [*unwell(kind, ask(folder, STATUS, seconds=ask_seconds))]
    except NotAnsweredError as error:
        because = [f"the supervisor does not answer: {error}"]
    if json_wanted:
        sys.stdout.write(json.dumps({"asked": kind, "well": not because, "because": because}) + "\n")
    elif not quiet:
        sys.stdout.write(f"not {kind}: {'; '.join(because)}\n" if because else f"{kind}\n")
    return 1 if because else 0


def _run_dir(node: str | None, env_file: Path | None, state_dir: Path | None) -> Path:
    """Return the run folder of the node that is meant. Raises OperatorError."""
    if node is None and env_file is None:
        named = state_dir or os.environ.get("STATE_DIR")
        if named:
            # Where it is said so plainly, nothing has to be read or loaded.
            return Path(named).absolute() / "run"
    from pgnode.cli.target import Named, find_target  # noqa: PLC0415 - loads the settings, which take the most time

    return find_target(Named(node, env_file, state_dir)).settings.run_dir


def unwell(kind: Kind, report: Mapping[str, Any]) -> list[str]:
    """Say what is missing.

    Args:
        kind: What is asked for.
        report: What the supervisor says.

    Returns:
        Reasons; none where nothing is.
    """
    if kind == "live":
        return []
    found: list[str] = []
    core, state = report.get("core", {}), report.get("state")
    if report.get("phase") != "ready":
        found.append(f"the supervisor is {report.get('phase')}")
    if kind == "core" and state != "running":
        found.append(f"no core runs ({state})")
    elif state in ("restoring", "starting", "recovering", "failed"):
        found.append(f"the core is not up ({state})")
    if core.get("api_error"):
        found.append(f"the core's API does not answer: {core['api_error']}")
    if kind == "ready":
        drain = report.get("drain", {})
        if drain.get("draining"):
            found.append("the node is being drained")
        elif drain.get("away") and drain.get("error"):
            found.append(f"inbounds are not back after a drain: {drain['error']}")
        if report.get("bus", {}).get("error"):
            found.append(f"the bus does not answer: {report['bus']['error']}")
        if report.get("store_error"):
            found.append(f"the store takes no changes: {report['store_error']}")
        found += [
            f"{process['name']} does not run" for process in report.get("processes", ()) if not process.get("pid")
        ]
    return found
