"""``pgnode restart`` and ``pgnode reload``: the running node becomes the version, and takes the settings, that are there now.

Both are done in place, and disconnect nobody. A restart brings a new core as well where that is asked for, and that does.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import time
from typing import Any

import psutil

from pgnode.bus.client import CommandClient
from pgnode.bus.commands import Kind
from pgnode.bus.keys import Keys
from pgnode.cli.facts import is_stopped
from pgnode.cli.operator_audit import note
from pgnode.cli.output import say
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, Target, find_target
from pgnode.errors import NodeError, NotAnsweringError, NotRunningError, OperatorError, SettingsError
from pgnode.settings import Settings, unknown_settings
from pgnode.supervisor.host.node_lock import may_be_signalled
from pgnode.supervisor.processes.restart_in_place import RestartStatus

#: Seconds that a restart may take: the trial of the installed version, a start that is under way, new workers.
WAIT_SECONDS = 180.0

#: Seconds that a new core may take.
CORE_SECONDS = 120.0

#: Seconds between two looks.
POLL_SECONDS = 0.1

#: The node runs, and something is not well.
EXIT_NOT_WELL = 4


def restart_node(
    named: Named = Named(),  # noqa: B008 - frozen
    *,
    new_core: bool,
    json_wanted: bool = False,
    wait_seconds: float = WAIT_SECONDS,
) -> int:
    """Restart a node in place, and wait until it is ready.

    Args:
        named: What the operator said about which node is meant.
        new_core: Whether it gets a new core as well, which drops its users' connections.
        json_wanted: Print JSON.
        wait_seconds: Seconds that it may take.

    Returns:
        The exit code.

    Raises:
        OperatorError: It does not run, or goes on as it was; the text says why.
    """
    target = _find(named, json_wanted=json_wanted)
    now = _ask(target, signal.SIGUSR2, wait_seconds)
    _tell_of_slips(target)
    if not json_wanted:
        say(f"pgnode {now.version} runs now, restarted in place (pid {now.pid})")
        if now.changed:
            say(f"settings {now.changed}")
    core = asyncio.run(_new_core(target.settings)) if new_core and not now.trouble else None
    if json_wanted:
        Screen().json({**_outcome(now), "core": core})
    elif core is not None:
        say(core)
    return _trouble(now) if now.trouble else 0


def reload_node(
    named: Named = Named(),  # noqa: B008 - frozen
    *,
    json_wanted: bool = False,
    wait_seconds: float = WAIT_SECONDS,
) -> int:
    """Have a node take its settings anew, and wait until it has.

    Args:
        named: What the operator said about which node is meant.
        json_wanted: Print JSON.
        wait_seconds: Seconds that it may take.

    Returns:
        The exit code.

    Raises:
        OperatorError: It does not run, or goes on as it was; the text says why.
    """
    target = _find(named, json_wanted=json_wanted)
    now = _ask(target, signal.SIGHUP, wait_seconds)
    _tell_of_slips(target)
    if json_wanted:
        Screen().json(_outcome(now))
    else:
        say(f"settings {now.changed}" if now.changed else "no setting is different; GUNICORN_CONF was read again")
    return _trouble(now) if now.trouble else 0


def _find(named: Named, *, json_wanted: bool) -> Target:
    target = find_target(named)
    if target.why:
        say(target.why, error=json_wanted)
    return target


def _tell_of_slips(target: Target) -> None:
    """Say which names in the files of settings mean nothing: who has just edited one is here."""
    with contextlib.suppress(SettingsError):
        for sentence in unknown_settings(target.env_file):
            say(sentence, error=True)


def _outcome(now: RestartStatus) -> dict[str, Any]:
    """Return what became of it, for programs."""
    return {
        "version": now.version,
        "pid": now.pid,
        "restarts_in_place": now.restarts,
        "settings": now.changed,
        "trouble": now.trouble,
    }


def _trouble(now: RestartStatus) -> int:
    say(f"a part of the version before goes on: {now.trouble}", error=True)
    return EXIT_NOT_WELL


def _ask(target: Target, number: signal.Signals, wait_seconds: float) -> RestartStatus:
    """Send the node a signal, and wait for what becomes of it. Raises OperatorError."""
    settings, pid = target.settings, target.pid
    if pid is None:
        raise NotRunningError(
            f"no node runs with STATE_DIR={settings.state_dir}: start it with `pgnode run`, or as a service"
        )
    if not may_be_signalled(pid, number):
        raise OperatorError(
            f"the node that runs (pid {pid}) cannot be restarted in place: it is still starting, or of a version that does not "
            "know how; try again, or end it and start it"
        )
    before = _status(settings, pid)
    try:
        process = psutil.Process(pid)
        if is_stopped(pid):
            raise NotAnsweringError(
                f"the supervisor (pid {pid}) was stopped by a signal (SIGSTOP) and was asked for nothing: kill -CONT it"
            )
        os.kill(pid, number)
        note(settings, "node", "reload asked for" if number is signal.SIGHUP else "restart in place asked for")
    except (psutil.NoSuchProcess, ProcessLookupError):
        raise NotRunningError(f"the node (pid {pid}) has just ended: start it") from None
    except PermissionError:
        raise OperatorError(f"the node that runs (pid {pid}) is another user's: be that user, or root") from None
    return _wait(settings, before, process, number, time.monotonic() + wait_seconds)


def _status(settings: Settings, pid: int) -> RestartStatus:
    found = RestartStatus.read(settings.run_dir)
    return found if found is not None and found.pid == pid else RestartStatus(pid, -1, "")


def _wait(
    settings: Settings, before: RestartStatus, process: psutil.Process, number: signal.Signals, deadline: float
) -> RestartStatus:
    """Wait for the outcome. Raises OperatorError."""
    while True:
        now = _status(settings, before.pid)
        if now.restarts > max(before.restarts, 0) or (now.restarts == before.restarts and now.rereads > before.rereads):
            return now
        if now.restarts == before.restarts and now.refused > before.refused:
            # What keeps a reload from being done is in the settings.
            refused = SettingsError if number is signal.SIGHUP else OperatorError
            raise refused(f"the node was not restarted and goes on as it is: {now.reason}")
        if not _goes_on(process):
            raise OperatorError(
                f"the node (pid {before.pid}) ended while it was restarted: see its log. Its core goes on, and is taken over by "
                "the next start"
            )
        if time.monotonic() > deadline:
            raise OperatorError("the node did not say in time that it was restarted: see its log")
        time.sleep(POLL_SECONDS)


def _goes_on(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.Error):
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return False


async def _new_core(settings: Settings) -> str:
    """Have the node start a new core. Raises OperatorError."""
    client = CommandClient(settings.bus_url, Keys(settings.bus_prefix), f"operator-{secrets.token_hex(4)}")
    client.start()
    try:
        return str(json.loads(await client.call(Kind.NEW_CORE, b"{}", CORE_SECONDS))["detail"])
    except NodeError as error:
        raise OperatorError(f"no new core was started: {error.text}") from None
    finally:
        await client.close()
