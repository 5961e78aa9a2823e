"""``pgnode top`` on a terminal, beside a node that moves bytes, hangs, and ends."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from typing import Any

from pgnode.testing.configs import COUNTED_INBOUNDS, make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.support.polling import eventually
from tests.support.processes import run_to_end, stopped
from tests.support.terminals import Terminal

TAG = "VLESS"
TOP = [sys.executable, "-X", "faulthandler", "-m", "pgnode", "top"]

#: Seconds that the command may take to draw on a machine that is busy.
LONG = 90.0


async def shows(terminal: Terminal, *texts: str) -> None:
    try:
        await eventually(lambda: all(text in terminal.screen.text for text in texts), f"{texts} are shown", LONG)
    except AssertionError:
        raise AssertionError(f"{texts} are not all on the screen:\n{terminal.screen.text}") from None


async def ends(terminal: Terminal, code: int) -> None:
    assert await terminal.ended(LONG) == code
    await eventually(lambda: terminal.is_as_before, "the terminal is as it was")


async def test_traffic_is_shown_live(node: NodeProcess, panel: PanelClient, target: Target) -> None:
    config = make_config([make_inbound(TAG, "vless")]) | COUNTED_INBOUNDS
    users = [make_user(name, [TAG]) for name in ("much@e2e", "little@e2e")]
    await panel.start(config, users)
    links = [
        link(config["inbounds"][0], user, name=user.email, source_address=f"127.0.0.{number}")
        for number, user in enumerate(users, 7)
    ]

    async def move(client: ClientCore, email: str, count: int) -> None:
        while True:
            await client.move(email, 1000, count)

    async with ClientCore(links, target) as client, Terminal(TOP, node.environment()) as terminal:
        moving = [
            asyncio.create_task(move(client, "much@e2e", 400_000)),
            asyncio.create_task(move(client, "little@e2e", 1_000)),
        ]
        try:
            await shows(terminal, " · running · up ", "much@e2e", "little@e2e", "2 online", "rest ", "down▼")
            assert terminal.screen.is_coloured
            assert terminal.screen.modes == {"1049"}, "another screen, and no cursor"

            def first(name: str, second: str) -> bool:
                """Both are there: a busy machine may move nothing of one of them for a while."""
                text = terminal.screen.text
                return 0 <= text.find(name) < text.find(second)

            await eventually(lambda: first("much@e2e", "little@e2e"), "who moves most is the first", LONG)
            assert terminal.screen.text.splitlines()[-1].startswith("q quit")
            terminal.press("n")
            await shows(terminal, "users▼")
            await eventually(lambda: first("little@e2e", "much@e2e"), "they are sorted by name", LONG)
            terminal.press("\t")
            await shows(terminal, "inbounds▼", TAG)

            async def told() -> bool:
                code, text = await run_to_end([*TOP, "--json"], env=node.environment())
                found: dict[str, Any] = json.loads(text)["live"]
                assert code == 0, text
                return [user["name"] for user in found["users"]][:1] == ["much@e2e"] and found["down"] > 0

            await eventually(told, "programs are told the same", LONG)
            terminal.press("q")
            await ends(terminal, 0)
        finally:
            for task in moving:
                task.cancel()
            await asyncio.gather(*moving, return_exceptions=True)


async def test_without_colours_and_by_a_pipe(node: NodeProcess) -> None:
    async with Terminal(TOP, {**node.environment(), "NO_COLOR": "1"}, columns=60, lines=14) as terminal:
        await shows(terminal, "users", "workers")
        assert not terminal.screen.is_coloured
        terminal.process.send_signal(signal.SIGINT)
        await ends(terminal, 0)
    code, text = await run_to_end(TOP, env=node.environment())
    assert (code, "pgnode top --once prints one look" in text) == (1, True)
    code, text = await run_to_end([*TOP, "--once"], env={**node.environment(), "COLUMNS": "80"})
    assert (code, text.splitlines()[0].startswith("pgnode ")) == (0, True)
    assert all(len(line) <= 80 for line in text.splitlines())


async def test_a_node_that_hangs_and_ends_is_shown(node: NodeProcess) -> None:
    async with Terminal(TOP, node.environment()) as terminal, Terminal(TOP, node.environment()) as other:
        await shows(terminal, " · running · up ")
        async with stopped(node.pid):
            await shows(terminal, " · hung · ", "kill -CONT it")
            code, text = await run_to_end([*TOP, "--once"], env=node.environment())
            assert (code, " · hung · " in text) == (4, True)
            await shows(other, " · hung · ")
            other.process.send_signal(signal.SIGTERM)
            await ends(other, 128 + signal.SIGTERM)
        await shows(terminal, " · running · up ")
        await node.stop()
        await shows(terminal, " · down · ", "no core runs")
        terminal.press("q")
        await ends(terminal, 0)
    code, text = await run_to_end(TOP, env=node.environment())
    assert (code, "no node runs with STATE_DIR=" in text) == (3, True)
