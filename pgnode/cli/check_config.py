"""``pgnode check-config``: a core's config checked as a start would, a scratch core included; no node is touched."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from pgnode.cli.facts import seen_core
from pgnode.cli.rows import Tone
from pgnode.cli.screen import Screen
from pgnode.cli.target import Named, find_target, running_settings
from pgnode.cli.texts import count
from pgnode.errors import OperatorError, StartFailedError
from pgnode.os_support.environment import confine
from pgnode.os_support.files import read_regular
from pgnode.os_support.held_sockets import HeldSockets
from pgnode.os_support.own_names import own_names
from pgnode.settings import Settings
from pgnode.settings.checks import paths_in
from pgnode.supervisor.core.config_check import check_config
from pgnode.supervisor.core.default_core import default_core
from pgnode.supervisor.core.log_files import LogFiles
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.maintenance.core_store import CoreStore
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.faults import config_fault
from pgnode.xray.config.ports import check_claims_in_thread
from pgnode.xray.config.wireguard import is_interface
from pgnode.xray.process.base import Core
from pgnode.xray.process.executable import ExecutableCore

#: Bytes of a config at most.
CONFIG_BYTES = 256 * 1024 * 1024


def show_check(named: Named, path: Path, *, exclude: Sequence[str] = (), json_wanted: bool = False) -> int:
    """Check a config and print what was found.

    Args:
        named: What the operator said about which node is meant.
        path: The config, JSON; ``-`` for standard input. A WireGuard interface's is known by its ``private_key``.
        exclude: Tags of inbounds whose clients stay as the config has them.
        json_wanted: Print JSON.

    Returns:
        The exit code: 0 where a start would take it, else 1.

    Raises:
        OperatorError: It cannot be told which node is meant, or the file cannot be read.
    """
    settings, screen = running_settings(find_target(named)), Screen()
    text = _read(path)
    kind = pb.WIREGUARD if is_interface(text) else pb.XRAY
    message = pb.Backend(type=kind, config=text, exclude_inbounds=exclude)
    confine(os.environ, settings.child_variables)
    try:
        spec = asyncio.run(check(settings, message, core_of(settings)))
    except StartFailedError as error:
        if json_wanted:
            screen.json({"well": False, "error": error.text, "warnings": []})
        else:
            screen.line(f"refused: {error.text}", Tone.BAD)
        return 1
    warnings = list(spec.base.warnings)
    if json_wanted:
        screen.json({"well": True, "error": "", "warnings": warnings})
        return 0
    for warning in warnings:
        screen.line(f"warning: {warning}", Tone.WARN)
    screen.line(f"a start would take it: {count(len(spec.base.inbounds), 'inbound')}", Tone.GOOD)
    return 0


def _read(path: Path) -> str:
    """Read the config. Raises OperatorError."""
    try:
        data = sys.stdin.buffer.read(CONFIG_BYTES) if str(path) == "-" else read_regular(path, CONFIG_BYTES)
        return data.decode()
    except OSError as error:
        piped = "; give - in its place, and send the config to standard input" if path.is_fifo() else ""
        raise OperatorError(f"{path} cannot be read: {error.strerror or error}{piped}") from None
    except UnicodeDecodeError:
        raise OperatorError(f"{path} is not UTF-8: save it as UTF-8") from None


def core_of(settings: Settings) -> Core:
    """Return the core that the node's next start would run."""
    cores = CoreStore(settings.state_dir, settings.xray_executable_path, settings.download_max_mib * 1024 * 1024)
    path = cores.selected()
    return default_core(settings) if path is None else ExecutableCore(path, settings.assets_dir)


async def check(settings: Settings, message: pb.Backend, core: Core) -> RunSpec:
    """Do the checks of a start.

    Args:
        settings: The node's.
        message: What a start would bring, without users.
        core: The core that checks.

    Returns:
        What was read.

    Raises:
        StartFailedError: A start would be refused; the text says why.
    """
    spec = RunSpec.read(message, settings)
    fault = await asyncio.to_thread(
        config_fault,
        spec.base,
        settings.run_dir,
        cert_dir=core.cert_dir,
        own_port=settings.metrics_port,
        own_names=await asyncio.to_thread(own_names, settings.metrics_host),
        script_paths=paths_in(settings.script_paths),
    )
    if fault is None:
        fault = await asyncio.to_thread(LogFiles.of(settings).config_fault, spec.base)
    if fault is not None:
        raise StartFailedError(fault)
    running = seen_core(settings)
    # What the node's own core holds is in nobody's way.
    await check_claims_in_thread(
        spec.base.claims, frozenset(), HeldSockets(running.pid) if running is not None else None
    )
    await check_config(core, spec.base, settings.core_start_timeout_seconds)
    return spec
