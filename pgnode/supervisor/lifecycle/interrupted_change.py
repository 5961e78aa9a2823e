"""A hot change whose supervisor did not live to its end: the next one leads the core to what is desired; nobody is dropped.

Before a hot change begins, both configs are noted beside the core. While the core's record names another config than the desired
one, and the note says which two it can be between, only the entries in which these differ are made anew.
"""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from pgnode.errors import NodeError
from pgnode.os_support.files import read_json, write_atomically
from pgnode.supervisor.core.controller import CoreController
from pgnode.supervisor.lifecycle.hot_change import CHANGING, HotChange, Prepare
from pgnode.supervisor.lifecycle.kept_spec import encode
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.supervisor.users.table import UserTable
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.diff import Capabilities, ConfigDiff, Decision, StartStrategy, decide
from pgnode.xray.process.run_folder import CHANGE_NAME

if TYPE_CHECKING:
    from pgnode.settings import Settings

log = structlog.get_logger(__name__)

#: Larger than two configs that a start can bring.
_MAX_BYTES: Final = 256 * 1024 * 1024


def note_change(run_dir: Path, old: RunSpec, new: RunSpec) -> None:
    """Note which configs the core will be between. Where that is not possible, a crash meanwhile costs the core.

    Args:
        run_dir: The core's folder.
        old: What runs.
        new: What is asked for.
    """
    specs = [base64.b64encode(spec.message).decode() for spec in (old, new)]
    try:
        # A core ends with the machine, so its note need not outlive a crash of it.
        write_atomically(run_dir / CHANGE_NAME, json.dumps(specs), durable=False)
    except OSError as error:
        log.warning("the change of the core is not noted", folder=str(run_dir), error=str(error))


def noted_change(settings: Settings) -> list[RunSpec]:
    """Return the configs that were noted; empty where there are none that can be read."""
    try:
        found = read_json(settings.run_dir / CHANGE_NAME, _MAX_BYTES)
        return [RunSpec.read(pb.Backend.FromString(base64.b64decode(text)), settings) for text in found]
    except FileNotFoundError:
        return []
    except Exception as error:
        # Whatever it holds: without a note a new core takes the place of this one.
        log.warning("the note of a change of the core cannot be read", error=str(error))
        return []


class InterruptedChange:
    """Leads a core back that an earlier supervisor was changing.

    Args:
        settings: Paths and time limits.
        core: The core, which was taken over.
        prepare: Makes the plan of a hot change.
    """

    def __init__(self, settings: Settings, core: CoreController, prepare: Prepare) -> None:
        self._settings = settings
        self._core = core
        self._prepare = prepare

    def __repr__(self) -> str:
        return f"InterruptedChange({self._core!r})"

    async def finish(self, desired: RunSpec, users: UserTable) -> bool:
        """Bring the core to the desired config from wherever it is.

        Args:
            desired: What has to run.
            users: The desired users.

        Returns:
            Whether the core is what is desired now; where it is not, it cannot be relied on.
        """
        running = self._core.running
        specs = await asyncio.to_thread(noted_change, self._settings)
        hashes = {spec.base.base_hash for spec in specs}
        if running is None or desired.base.base_hash not in hashes or running.config_hash not in {CHANGING, *hashes}:
            return False
        others = [spec for spec in specs if spec.base.base_hash != desired.base.base_hash]
        if len(others) != 1:
            return False
        try:
            decision = decide(others[0].base, desired.base, Capabilities.of(await self._core.version()))
            if decision.strategy is not StartStrategy.HOT_CHANGE:
                return False
            log.info("finishing a change of the core that was interrupted", differs=decision.reason)
            decision = replace(decision, diff=_from_anywhere(decision))
            plan = await self._prepare(self._settings, self._core.core, desired, decision)
            change = HotChange(self._core, plan, desired, self._settings.core_call_timeout_seconds)
            await change.carry_out(users)
            await self._core.keep(lambda: encode(desired))
            await change.finished()
        except NodeError as error:
            log.warning("the change of the core cannot be finished, starting a new one", error=error.text)
            return False
        return True


def _from_anywhere(decision: Decision) -> ConfigDiff:
    """Make a diff that removes whatever of both configs may be there, before it adds what is desired."""
    diff = decision.diff
    return replace(
        diff,
        remove_inbounds=tuple(dict.fromkeys((*diff.remove_inbounds, *diff.add_inbounds))),
        remove_outbounds=tuple(dict.fromkeys((*diff.remove_outbounds, *diff.add_outbounds))),
    )
