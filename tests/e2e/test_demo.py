"""``pgnode demo`` as a stranger runs it."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path

from pgnode.testing.node import CERTIFICATES_VARIABLE
from tests.support.polling import eventually
from tests.support.processes import of_state_dir

#: The demo promises to end by itself within a minute; a machine with other things to do gets more.
LIMIT_SECONDS = 180.0


def left_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def test_demo_holds_what_it_shows(short_dir: Path) -> None:
    begun = time.monotonic()
    as_a_stranger = {name: value for name, value in os.environ.items() if name != CERTIFICATES_VARIABLE}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "pgnode",
        "demo",
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=short_dir,
        env={**as_a_stranger, "TMPDIR": str(short_dir), "COLUMNS": "200"},
    )
    try:
        async with asyncio.timeout(LIMIT_SECONDS + 10):
            output = (await process.communicate())[0].decode()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    assert process.returncode == 0, output
    assert time.monotonic() - begun < LIMIT_SECONDS
    assert "✗" not in output
    assert output.count("✓") > 12
    for text in ("alice@demo", "Shadowsocks-2022", "127.0.0.2", "goroutines", "email: "):
        assert text in output
    assert left_in(short_dir) == []
    await eventually(lambda: not of_state_dir(short_dir), "nothing is left")
