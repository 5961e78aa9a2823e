"""What a core says of a config, before anything that runs is touched."""

from __future__ import annotations

import asyncio
import json

from pgnode.errors import StartFailedError
from pgnode.xray.config.document import BaseConfig, render
from pgnode.xray.process.base import Core
from pgnode.xray.process.diagnose import find_refused_part
from pgnode.xray.process.rehearsal import leaves_out_parts, rehearsal
from pgnode.xray.process.trial import EXIT_CONFIG_REFUSED, EXIT_START_FAILED, refusal_reason
from pgnode.xray.process.unbindable import unbindable

#: Exit codes with which a core has read a config without a fault; any other one is that of a refusal or a crash.
_READ = frozenset({0, EXIT_START_FAILED})

#: Seconds spent on finding the entry of a config that the core refuses; a panel waits 10 s for its start.
DIAGNOSIS_SECONDS = 5.0


async def check_config(core: Core, base: BaseConfig, limit_seconds: float) -> None:
    """Let a core come up with a config, where it serves nobody.

    Args:
        core: The core that checks.
        base: The config; it is checked without users.
        limit_seconds: Seconds that one process of it may take.

    Raises:
        StartFailedError: The core refuses the config; the text says which part of it, and why where the core tells.
    """
    document = json.loads(render(base, {}))
    up, code, output = await core.rehearse(json.dumps(rehearsal(document)), limit_seconds)
    by_reading = code == EXIT_CONFIG_REFUSED
    if up and leaves_out_parts(document):
        # Nobody starts these beside the core that runs, but their settings can be read.
        code, output = await core.check_exit_code(json.dumps(document), limit_seconds)
        up, by_reading = code in _READ, True
    if up:
        return
    reason = refusal_reason(output)
    if by_reading and reason:
        raise StartFailedError(reason)
    # The library gives no reason, and what is said of a start names no part: so the parts are tried one by one.

    async def accepted(config_json: str) -> bool:
        if by_reading:
            return (await core.check_exit_code(config_json, limit_seconds))[0] in _READ
        return (await core.rehearse(config_json, limit_seconds))[0]

    part = await find_refused_part(
        base.document,
        accepted,
        asyncio.get_running_loop().time() + DIAGNOSIS_SECONDS,
        numbers=base.numbers.of(base.document),
        prepare=unbindable if by_reading else rehearsal,
    )
    raise StartFailedError(f"{part}: {reason}" if reason else part)
