"""What an operator sees: ``pgnode stats`` against bytes that really moved, ``pgnode status`` of a node in its states."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from pgnode.testing.configs import COUNTED_INBOUNDS, make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import PanelClient
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end, stopped

TAG = "VLESS"


async def shown(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    """Exit code and output of ``pgnode stats``."""
    return await run_to_end([sys.executable, "-m", "pgnode", "stats", *arguments], env=node.environment())


async def test_traffic_as_an_operator_sees_it(node: NodeProcess, panel: PanelClient, target: Target) -> None:
    config = make_config([make_inbound(TAG, "vless")]) | COUNTED_INBOUNDS
    mover, idle = make_user("mover@e2e", [TAG]), make_user("idle@e2e", [TAG])
    await panel.start(config, [mover, idle])
    found: dict[str, Any] = {}

    async def counted() -> bool:
        code, output = await shown(node, "--json")
        assert code == 0, output
        found.update(json.loads(output))
        return [user["downlink_bytes"] for user in found["users"]] == [400_000]

    async with ClientCore([link(config["inbounds"][0], mover, name=TAG, source_address="127.0.0.9")], target) as client:
        await client.move(TAG, 300_000, 400_000)
        await eventually(counted, "all bytes are shown")
    [user] = found["users"]
    assert user == {
        "name": "mover@e2e",
        "uplink_bytes": 300_000,
        "downlink_bytes": 400_000,
        "owed_bytes": 700_000,
        "online": user["online"],
    }
    assert [inbound["name"] for inbound in found["inbounds"]] == [TAG]
    assert found["state"] == "running"
    assert found["core_runs"] >= 1
    assert 0 <= found["age_seconds"] < 60
    assert found["owed_bytes"]["users"] == 700_000
    assert found["owed_bytes"]["inbounds"] > 0

    assert (await panel.traffic("mover@e2e", reset=True)).uplink_bytes == 300_000

    async def handed_over() -> bool:
        [user] = json.loads((await shown(node, "--json"))[1])["users"]
        return bool(user["owed_bytes"] == 0 and user["uplink_bytes"] == 300_000)

    await eventually(handed_over, "what was taken is owed no more, and still counted")
    code, text = await shown(node, "--top", "1")
    assert code == 0
    assert text.startswith("node running, core run ")
    assert "mover@e2e" in text
    assert "300.0 kB" in text
    assert "owed: counted, and not yet given" in text


async def test_without_a_node_it_says_so(node: NodeProcess) -> None:
    environment = node.environment() | {"STATE_DIR": str(node.state_dir.parent / "none")}
    code, output = await run_to_end([sys.executable, "-m", "pgnode", "stats"], env=environment)
    assert code == 3
    assert f"no node has run with STATE_DIR={environment['STATE_DIR']}: there is no state.db" in output


#: Runs a command as nobody, with all modules read before, since nobody may read this installation.
AS_NOBODY = """
import os, sys
import pgnode.cli.status, pgnode.cli.target
from pgnode.cli import main
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
main(sys.argv[1:])
"""


async def status(node: NodeProcess, *arguments: str) -> tuple[int, str]:
    """Exit code and output of ``pgnode status``."""
    environment = {**node.environment(), "COLUMNS": "80"}
    return await run_to_end([sys.executable, "-m", "pgnode", "status", *arguments], env=environment)


async def test_how_a_node_is(node: NodeProcess, panel: PanelClient) -> None:
    await panel.start(make_config([make_inbound(TAG, "vless")]), [make_user("one@e2e", [TAG])])
    code, text = await status(node)
    assert code == 0, text
    lines = text.splitlines()
    assert lines[0].startswith("pgnode ")
    assert " · running · up " in lines[0]
    assert f" · pid {node.pid} · " in lines[0]
    assert all(len(line) <= 80 for line in lines[1:])
    assert "users     1 desired, 1 applied, 0 rejected" in text
    assert f"pid {core_pid(node)}" in text
    assert f"REST {node.host}:{node.port}" in text
    assert "bus       embedded Valkey, answers in" in text
    code, text = await status(node, "--json")
    found = json.loads(text)
    assert (code, found["status"], found["pid"], found["well"]) == (0, "running", node.pid, True)
    assert [worker["kind"] for worker in found["workers"]] == ["rest", "rest"]
    assert node.api_key not in text


async def test_a_node_is_healthy_and_its_doctor_content(node: NodeProcess, panel: PanelClient, tmp_path: Path) -> None:
    config = make_config([make_inbound(TAG, "vless")])
    await panel.start(config, [make_user("one@e2e", [TAG])])
    # It is asked for its settings: nothing but the folder is known here.
    bare = {"STATE_DIR": str(node.state_dir), "PATH": os.environ["PATH"], "HOME": str(tmp_path), "COLUMNS": "200"}

    async def pgnode(*arguments: str) -> tuple[int, str]:
        return await run_to_end([sys.executable, "-m", "pgnode", *arguments], env=bare)

    for kind in ("--live", "--ready", "--core"):
        assert await pgnode("health", kind) == (0, f"{kind[2:]}\n")
    code, text = await pgnode("doctor")
    assert f"SERVICE_PORT={node.port} takes connections" in text
    assert f"the node is running (pid {node.pid})" in text
    assert (code, "FAIL" in text) == (0, False), text
    code, text = await pgnode("config", "--changed")
    assert f"API_PORT=62051  (default; the running node has {node.api_port})" in text.splitlines()
    assert node.api_key not in text
    code, text = await pgnode("workers")
    assert (code, [line.split()[0] for line in text.splitlines()]) == (0, ["kind", "rest", "rest"])
    # Its ports are held by the node's own core, which is in nobody's way.
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert await pgnode("check-config", str(tmp_path / "config.json")) == (0, "a start would take it: 1 inbound\n")
    config["inbounds"][0]["streamSettings"] = {"network": "nonsense"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    code, text = await pgnode("check-config", str(tmp_path / "config.json"))
    assert (code, text.startswith(f"refused: inbound '{TAG}'")) == (1, True), text


async def test_a_supervisor_that_stands_still_is_told_of_at_once(node: NodeProcess, panel: PanelClient) -> None:
    await panel.start(make_config([make_inbound(TAG, "vless")]), [make_user("one@e2e", [TAG])])
    async with stopped(node.pid):
        code, text = await status(node)
        health = await run_to_end([sys.executable, "-m", "pgnode", "health"], env=node.environment())
    assert health == (1, "not live: the supervisor does not answer: it did not answer within 2 s\n")
    assert code == 4, text
    assert " · hung · " in text
    assert "stopped by a signal (SIGSTOP): kill -CONT it" in " ".join(text.split())
    assert "users     1 desired, 0 rejected, as stored at" in text
    assert f"pid {core_pid(node)}" in text, "the core goes on"


async def test_another_user_is_told_whom_to_be(node: NodeProcess) -> None:
    if os.geteuid() == 0:
        command, code_of = [sys.executable, "-c", AS_NOBODY, "status"], node.state_dir.parent
    else:
        command, code_of = [sys.executable, "-m", "pgnode", "status"], node.state_dir
        code_of.chmod(0)
    try:
        code, text = await run_to_end(command, env={**node.environment(), "HOME": "/"})
    finally:
        code_of.chmod(0o700)
    assert code == 1
    assert text.startswith(f"pgnode: STATE_DIR={node.state_dir} "), text
    assert "root" in text


async def test_a_node_that_is_not_there_is_down(node: NodeProcess) -> None:
    code, text = await status(node, "--state-dir", str(node.state_dir.parent / "none"))
    assert code == 3
    assert " · down · " in text
    assert "none yet: no node has run with this folder" in text
