"""Secrets of all kinds go into a node, much is done to it and much fails, and none of them is in what it prints or writes.

Looked at are the log of all processes (debug, as JSON), the log stream, the core's log files, the audit trail, what
commands print, notes and records in the state folder, and command lines and environments of all child processes. Left out is what
the secrets have to be in: the store, the keys' files, and the core's own config in the run folder, each of which only the node's
user can read; and the environment of the start, which the supervisor and the trial of the next one have.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import secrets
import signal
import stat
import sys
import threading
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from grpc import aio

from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.faults import ArmedFaults
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelError
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import SS2022_METHOD, make_user
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import WITH_GRPC
from tests.e2e.test_grpc import caller, maintenance_desk
from tests.support.certificates import make_certificate
from tests.support.polling import eventually
from tests.support.processes import core_pid, run_to_end

pytestmark = pytest.mark.asyncio(loop_scope="session")

LONG = 90.0

#: Files below the state folder that have to hold secrets; all else must not.
KEEPS_SECRETS = ("state.db*", "api_key*", "tls/key.pem", "run/tls.pem", "run/core*", "run/valkey*")


class Canaries:
    """The secrets, and where they were found."""

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}
        self._forms: dict[str, list[str]] = {}
        #: Name of the secret -> where it was, and what stood around it.
        self.found: list[str] = []

    def add(self, name: str, secret: str) -> str:
        self.by_name[name] = secret
        self._forms[name] = [form.lower() for form in _forms(secret)]
        return secret

    def look(self, where: str, text: str) -> None:
        """Look for each secret, also written in other ways."""
        folded = text.lower()
        for name, forms in self._forms.items():
            for form in forms:
                at = folded.find(form)
                if at >= 0:
                    self.found.append(f"{name} in {where}: …{text[max(0, at - 60) : at + len(form) + 20]!r}…")
                    break


def _forms(secret: str) -> Iterator[str]:
    yield secret
    yield base64.b64encode(secret.encode()).decode().rstrip("=")
    with contextlib.suppress(ValueError):
        value = uuid.UUID(secret)
        yield value.hex
        yield base64.b64encode(value.bytes).decode().rstrip("=")
        yield base64.urlsafe_b64encode(value.bytes).decode().rstrip("=")


def _below(pid: int) -> Iterator[int]:
    """All processes below one. That is asked often, so not by a look at each process of the machine where the kernel tells it."""
    if not Path(f"/proc/self/task/{os.getpid()}/children").exists():
        yield from (process.pid for process in psutil.Process(pid).children(recursive=True))
        return
    with contextlib.suppress(OSError):
        for file in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in map(int, file.read_text().split()):
                yield child
                yield from _below(child)


class ProcessWatch:
    """Reads command lines and environments of a node's child processes, again and again, in a thread."""

    def __init__(self, pid: int, canaries: Canaries) -> None:
        self._pid = pid
        self._canaries = canaries
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.seen: set[str] = set()
        self._own = psutil.Process(pid).cmdline()
        self._known: set[tuple[int, float, str]] = set()

    def __enter__(self) -> ProcessWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ends.set()
        self._thread.join(LONG)
        for pid, created, line in self._known:
            with contextlib.suppress(psutil.NoSuchProcess):
                if line == " ".join(self._own) and (process := psutil.Process(pid)).create_time() == created:
                    assert process.cmdline() != self._own, "it never became another program"

    def _run(self) -> None:
        known, own = self._known, self._own
        read: set[tuple[int, bytes]] = set()
        while not self._ends.wait(0.02):
            with contextlib.suppress(psutil.Error):
                for pid in _below(self._pid):
                    with contextlib.suppress(psutil.Error, OSError):
                        line = Path(f"/proc/{pid}/cmdline").read_bytes()
                        if (pid, line) in read:
                            continue
                        read.add((pid, line))
                        process = psutil.Process(pid)
                        words = process.cmdline()
                        # After an exec it is another one.
                        what = (process.pid, process.create_time(), " ".join(words))
                        if not words or what in known:
                            continue
                        known.add(what)
                        self.seen.add(" ".join(words))
                        self._canaries.look(f"the command line of {words[:4]}", " ".join(words))
                        # Before an exec it is still the supervisor.
                        if words == own or "pgnode.supervisor.dry_start" in words:
                            continue
                        environment = Path(f"/proc/{process.pid}/environ").read_text(errors="replace")
                        if process.cmdline() == words:
                            self._canaries.look(f"the environment of {words[:4]}", environment)


def reality_inbound(private_key: str, short_id: str) -> dict[str, Any]:
    settings = {
        "dest": "127.0.0.1:9",
        "serverNames": ["canary.example"],
        "privateKey": private_key,
        "shortIds": [short_id],
    }
    return make_inbound(
        "REALITY", "vless", stream={"network": "tcp", "security": "reality", "realitySettings": settings}
    )


def x25519() -> str:
    return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")


def make_everything(canaries: Canaries, folder: Path) -> tuple[dict[str, Any], list[pb.User]]:
    """A config and users that are full of secrets."""
    cert, key = make_certificate(folder, ["canary.example"], [])
    lines = key.read_text().splitlines()
    canaries.add("TLS key of an inbound", lines[1])
    server_key = canaries.add("key of a 2022 inbound", base64.b64encode(secrets.token_bytes(16)).decode())
    reality = canaries.add("REALITY private key", x25519())
    password = canaries.add("password of an outbound", f"out-{secrets.token_hex(12)}")
    certificates = [{"certificate": cert.read_text().splitlines(), "key": lines}]
    tls = {"network": "tcp", "security": "tls", "tlsSettings": {"certificates": certificates}}
    inbounds = [
        make_inbound("VLESS", "vless"),
        make_inbound("TLS", "trojan", stream=tls),
        make_inbound("SS", "shadowsocks", method=SS2022_METHOD, password=server_key),
        reality_inbound(reality, secrets.token_hex(8)),
    ]
    config = make_config(inbounds)
    config["log"] = {"loglevel": "debug", "access": "access.log", "error": "error.log", "dnsLog": True}
    server = {"address": "127.0.0.1", "port": 9, "users": [{"user": "canary", "pass": password}]}
    config["outbounds"].append({"tag": "SOCKS", "protocol": "socks", "settings": {"servers": [server]}})
    users = []
    for number in range(3):
        user = make_user(f"canary{number}@secrets", ["VLESS", "TLS", "SS", "REALITY"], key=secrets.token_hex(8))
        canaries.add(f"id of user {number}", user.proxies.vless.id)
        canaries.add(f"password of user {number}", user.proxies.trojan.password)
        users.append(user)
    return config, users


@pytest_asyncio.fixture(loop_scope="session")
async def stage(short_dir: Path) -> AsyncIterator[Stage]:
    made = Stage(short_dir)
    yield made
    await made.node.stop()


class Stage:
    """A node that was not started, with its secrets, and all that it says."""

    def __init__(self, folder: Path) -> None:
        self.canaries, self.folder = Canaries(), folder
        self.lines: list[str] = []
        self.faults = ArmedFaults(folder / "faults")
        key = self.canaries.add("API key", str(uuid.uuid4()))
        key_file = folder / "key"
        key_file.write_text(f"{key}\n")
        env = {
            **WITH_GRPC,
            **self.faults.environment,
            "API_KEY": "",
            "API_KEY_FILE": str(key_file),
            "METRICS_KEY": self.canaries.add("METRICS_KEY", f"metrics-{secrets.token_hex(12)}"),
            "DEBUG": "true",
            "LOG_FORMAT": "json",
            "CORE_LOG": "stderr",
            "CANARY_OF_THE_ENVIRONMENT": self.canaries.add("a variable", f"env-{secrets.token_hex(12)}"),
        }
        self.node = NodeProcess(env=env, state_dir=folder / "state", api_key=key, on_line=self.lines.append)

    async def command(self, *words: str) -> str:
        """Run a command on the node; whatever it prints is looked at."""
        _, output = await run_to_end(
            [sys.executable, "-m", "pgnode", *words], env=self.node.environment(), timeout_seconds=LONG
        )
        self.canaries.look(f"pgnode {words}", output)
        return output

    def look_at_files(self) -> list[str]:
        """Look at each file that must hold no secret; returns the names of all."""
        names = []
        left_out = {path for pattern in KEEPS_SECRETS for path in self.node.state_dir.glob(pattern)}
        for path in sorted(self.node.state_dir.rglob("*")):
            mode = path.lstat().st_mode
            if not stat.S_ISREG(mode):
                continue
            names.append(str(path.relative_to(self.node.state_dir)))
            if path in left_out or path.stat().st_size > 50_000_000 or path.suffix == ".dat":
                assert path.suffix in (".dat", ".pem") or mode & 0o077 == 0, path
                continue
            self.canaries.look(f"the file {names[-1]}", path.read_bytes().decode("latin-1"))
        return names


async def _fails(call: Any) -> str:
    """The text of the error that a call is answered with; looked at by whoever called."""
    try:
        await call
    except (PanelError, NoAnswerError, aio.AioRpcError) as error:
        return str(error)
    return ""


async def test_no_secret_is_in_anything_that_a_node_prints_or_writes(stage: Stage, target: Target) -> None:
    node, canaries = stage.node, stage.canaries
    config, users = make_everything(canaries, stage.folder)
    await node.start()
    canaries.add("private key of the API", (node.state_dir / "tls" / "key.pem").read_text().splitlines()[1])
    for path in (node.state_dir / "run").glob("valkey*.conf"):
        words = path.read_text().split()
        canaries.add("password of the bus", words[words.index("requirepass") + 1])
    with ProcessWatch(node.pid, canaries) as watch:
        await _much_happens(stage, config, users, target)
        await _much_fails(stage, config, users)
        await _operators_look(stage, config)
        previous = node.api_key
        rotated = json.loads(await stage.command("key", "rotate", "--json"))
        # Whoever asks for it as JSON gets it; nobody else does.
        canaries.found = [found for found in canaries.found if "('key', 'rotate', '--json')" not in found]
        node.api_key = canaries.add("the next API key", rotated["key"])
        await stage.command("key", "rotate")
        node.api_key = canaries.add("the last API key", (stage.folder / "key").read_text().strip())
        assert previous != node.api_key
        await eventually(lambda: _calls(node), "the new key is known", LONG)
        await _it_restarts_and_crashes(stage)
    await node.stop()

    for line in stage.lines:
        canaries.look("the log", line)
    names = stage.look_at_files()
    assert not canaries.found, "\n".join(canaries.found)
    # What was looked at is not nothing.
    log = "\n".join(stage.lines)
    assert "Traceback (most recent call last)" in log
    assert "restarted in place" in log
    assert users[0].email in (node.state_dir / "logs" / "access.log").read_text()
    assert {"audit.log", "logs/access.log", "logs/error.log"} <= set(names)
    audit = (node.state_dir / "audit.log").read_text()
    assert '"Start"' in audit
    assert "API key replaced" in audit
    assert any("grpc_worker" in words for words in watch.seen), watch.seen
    assert any("gunicorn" in words for words in watch.seen), watch.seen
    _check_form(stage.lines)


def _check_form(lines: Sequence[str]) -> None:
    """Each line is one JSON object with what is promised; all processes say something."""
    processes = set()
    for line in lines:
        found = json.loads(line)
        assert {"time", "level", "process", "pid", "message"} <= set(found), line
        assert set(found) <= {"time", "level", "process", "pid", "message", "fields", "traceback"}, line
        processes.add(found["process"])
    assert {"supervisor", "gunicorn", "rest", "grpc", "valkey", "core"} <= processes


async def _calls(node: NodeProcess) -> bool:
    async with node.panel() as panel:
        with contextlib.suppress(PanelError, NoAnswerError, OSError):
            await panel.info()
            return True
    return False


async def _much_happens(stage: Stage, config: Mapping[str, Any], users: Sequence[pb.User], target: Target) -> None:
    node, canaries = stage.node, stage.canaries
    async with node.panel() as panel, node.panel(auth="bearer") as other, panel.logs() as viewer:
        await panel.start(dict(config), list(users))
        await panel.sync_user(users[0])
        await other.sync_users(users)
        await panel.sync_chunked(users)
        stranger = make_user("canary-stranger@secrets", ["VLESS"], key=secrets.token_hex(8))
        canaries.add("id of a stranger", stranger.proxies.vless.id)
        inbound = config["inbounds"][0]
        links = [link(inbound, users[0], name="known"), link(inbound, stranger, name="unknown")]
        async with ClientCore(links, target) as client:
            await client.move("known", 1000, 1000)
            with contextlib.suppress(Exception):
                async with asyncio.timeout(5):
                    await client.move("unknown", 10, 10)
        await panel.stats(pb.UsersStat, reset=True)
        rule = {"ruleTag": "the-end", "port": "1", "outboundTag": "BLOCK"}
        await panel.call("PUT", "/routing/rules", pb.AddRoutingRuleRequest(rule=json.dumps(rule)), pb.Empty)
        line = ""
        while "the-end" not in line:
            line = await viewer.next_line(LONG)
            canaries.look("the log stream", line)
    async with caller(node) as over_grpc:
        for user in users:
            await over_grpc.call("SyncUsers", pb.Users(users=[user]))


async def _much_fails(stage: Stage, config: dict[str, Any], users: Sequence[pb.User]) -> None:
    node, canaries = stage.node, stage.canaries
    # A caller is told what is wrong with what it sent, so what it gets is not looked at; the log is.
    wrong = canaries.add("a wrong key", str(uuid.uuid4()))
    async with node.panel(api_key=wrong) as stranger, node.panel() as panel:
        for path in ("/info", f"/{wrong}", f"/info?key={wrong}"):
            await _fails(stranger.request("GET", path))
        bad_key = canaries.add("a REALITY key that is none", f"bad-{secrets.token_hex(14)}")
        broken = {**config, "inbounds": [*config["inbounds"][:3], reality_inbound(bad_key, "00")]}
        assert await _fails(panel.start(broken, list(users)))
        bad_password = canaries.add("a 2022 key that is none", f"bad-{secrets.token_hex(14)}")
        odd = make_inbound("ODD", "shadowsocks", method=SS2022_METHOD, password=bad_password)
        assert await _fails(panel.start({**config, "inbounds": [*config["inbounds"], odd]}, list(users)))
        torn = canaries.add("a torn config", f"torn-{secrets.token_hex(12)}")
        assert await _fails(panel.start(json.dumps({**config, "torn": torn})[:-2] + f'"{torn}', list(users)))
        bad = make_user("canary-bad@secrets", ["VLESS"], key=secrets.token_hex(8))
        bad.proxies.vless.id = canaries.add("an id that is none", f"no-uuid-{secrets.token_hex(12)}")
        await _fails(panel.sync_user(bad))
        await _fails(panel.sync_users([*users, bad]))
        # Two with one credential.
        double = make_user("canary-double@secrets", ["VLESS"])
        double.proxies.CopyFrom(users[0].proxies)
        await _fails(panel.sync_user(double))
        for point in ("commit.applied", "commands.take", "core.start", "commit.stored"):
            stage.faults.arm(point, "raise")
            await _fails(panel.sync_user(users[1]))
            await _fails(panel.start({**config, "dns": {"servers": ["127.0.0.1"]}}, list(users)))
            await _fails(panel.start(config, list(users)))
            stage.faults.disarm(point)
        await eventually(lambda: _starts(panel, config, users), "it starts again", LONG)
    async with maintenance_desk(node, node.api_key) as desk:
        for path, body in (("/node/core_update", b'{"core_version": "v0.0.1"}'), ("/node/geofiles", b'{"x": 1}')):
            with contextlib.suppress(PanelError, NoAnswerError, OSError):
                await desk.request("POST", path, body)
    async with caller(node, key=wrong) as stranger_over_grpc:
        await _fails(stranger_over_grpc.call("GetBaseInfo"))
    os.kill(core_pid(node), signal.SIGKILL)
    await eventually(lambda: any("bringing the core back" in line for line in stage.lines), "it died", LONG)


async def _starts(panel: Any, config: dict[str, Any], users: Sequence[pb.User]) -> bool:
    return not await _fails(panel.start(config, list(users)))


async def _operators_look(stage: Stage, config: Mapping[str, Any]) -> None:
    file = stage.folder / "config.json"
    file.write_text(json.dumps(config))
    for words in (
        ("status",),
        ("status", "--json"),
        ("doctor",),
        ("config",),
        ("config", "--json"),
        ("users",),
        ("users", "--json"),
        ("stats", "--json"),
        ("workers",),
        ("logs", "--lines", "0"),
        ("logs", "--json", "--lines", "0"),
        ("check-config", str(file)),
        ("cert", "show"),
        ("health",),
    ):
        assert await stage.command(*words)


async def _it_restarts_and_crashes(stage: Stage) -> None:
    node = stage.node
    before = sum("restarted in place" in line for line in stage.lines)
    node.send_signal(signal.SIGUSR2)
    await eventually(
        lambda: sum("restarted in place" in line for line in stage.lines) > before, "it restarts in place", LONG
    )
    stage.look_at_files()
    node.send_signal(signal.SIGSEGV)
    await eventually(lambda: node.returncode is not None, "it crashes", LONG)
    # With the note of the crash, before the next one takes it away.
    stage.look_at_files()
    await node.start()
