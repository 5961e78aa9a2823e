"""What the core refuses only when it listens: refused by name beforehand, and whoever is connected stays so."""

from __future__ import annotations

import asyncio
import copy
import os
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import pytest_asyncio
from redis.exceptions import RedisError

from pgnode.bus.connection import connect
from pgnode.settings import load
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.target import Target
from pgnode.testing.traffic import ClientCore, link
from pgnode.testing.users import make_user, make_users
from tests.e2e.conftest import FAST
from tests.support.polling import eventually
from tests.support.processes import core_pid, kill, worker_pids

Config = dict[str, Any]
#: How much of an error a panel shows in a notification.
SHOWN_CHARACTERS = 128
TAGS = ["VLESS", "Other"]
ENVIRONMENT = {
    "LISTEN_PORT_OF_TEST": str(free_port()),
    "PASS_ENVIRONMENT": "LISTEN_PORT_OF_TEST",
    "METRICS_PORT": str(free_port()),
}


@dataclass
class Stage:
    node: NodeProcess
    panel: PanelClient
    client: ClientCore
    config: Config
    folder: Path
    #: Where scripts may be run.
    scripts: Path

    def with_inbound(self, **changes: Any) -> Config:
        """The config with one inbound more."""
        config = copy.deepcopy(self.config)
        config["inbounds"].append(make_inbound("Other", "vless") | changes)
        return config

    async def start(self, config: Config) -> None:
        await self.panel.start(config, [make_user("holder@e2e", TAGS), *make_users(5, TAGS)])


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def whole_stage(target: Target, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Stage]:
    scripts = tmp_path_factory.mktemp("scripts")
    config = make_config([make_inbound("VLESS", "vless")])
    links = [link(config["inbounds"][0], make_user("holder@e2e", TAGS), name="VLESS")]
    async with (
        NodeProcess(env={**FAST, **ENVIRONMENT, "SCRIPT_PATHS": str(scripts)}) as node,
        node.panel() as panel,
        ClientCore(links, target) as client,
    ):
        yield Stage(node, panel, client, config, node.state_dir.parent, scripts)


@pytest_asyncio.fixture(loop_scope="session")
async def stage(whole_stage: Stage) -> Stage:
    await whole_stage.start(whole_stage.config)
    return whole_stage


def hysteria_without_tls(stage: Stage) -> Config:
    stream = {"network": "hysteria", "hysteriaSettings": {"version": 2}}
    return stage.with_inbound(protocol="hysteria", streamSettings=stream, settings={"version": 2, "clients": []})


def all_else_changed(stage: Stage) -> Config:
    """A start for which a new core is needed, with a part that no core comes up with."""
    return hysteria_without_tls(stage) | {"dns": {"servers": ["localhost"]}}


def metrics_in_use(stage: Stage) -> Config:
    return stage.config | {"metrics": {"tag": "m", "listen": f"127.0.0.1:{stage.node.port}"}}


def two_on_one_path(stage: Stage) -> Config:
    config = stage.with_inbound(listen=str(stage.folder / "in.sock"))
    config["inbounds"].append({**config["inbounds"][-1], "tag": "Third"})
    return config


def file_in_the_way(stage: Stage) -> Config:
    (stage.folder / "file").touch()
    return stage.with_inbound(listen=str(stage.folder / "file"))


def lock_in_the_way(stage: Stage) -> Config:
    (stage.folder / "locked.sock.lock").mkdir(exist_ok=True)
    return stage.with_inbound(listen=str(stage.folder / "locked.sock"))


def fallback_to_the_store(stage: Stage) -> Config:
    """A user of that inbound would be led to the node's own Valkey."""
    settings = {"decryption": "none", "clients": [], "fallbacks": [{"dest": str(stage.node.run_dir / "valkey.sock")}]}
    return stage.with_inbound(settings=settings)


def redirect_to_the_core(stage: Stage) -> Config:
    config = copy.deepcopy(stage.config)
    (stage.folder / "link").unlink(missing_ok=True)
    (stage.folder / "link").symlink_to(stage.node.run_dir)
    redirect = {"redirect": f"{stage.folder}/link/core.sock:1"}
    config["outbounds"].append({"tag": "R", "protocol": "freedom", "settings": redirect})
    return config


def two_on_one_port(stage: Stage) -> Config:
    return stage.with_inbound(port=stage.config["inbounds"][0]["port"])


def with_two(stage: Stage, one: Config, other: Config) -> Config:
    config = stage.with_inbound(**one)
    config["inbounds"].append(make_inbound("Third", "vless") | other)
    return config


def two_at_all_addresses(stage: Stage) -> Config:
    """Go takes either for all addresses, and the two would share connections at random."""
    port = free_port()
    return with_two(stage, {"listen": "0.0.0.0", "port": port}, {"listen": "::", "port": port})


def two_by_links(stage: Stage) -> Config:
    (stage.folder / "here").unlink(missing_ok=True)
    (stage.folder / "here").symlink_to(stage.folder)
    return with_two(stage, {"listen": f"{stage.folder}/t.sock"}, {"listen": f"{stage.folder}/here/t.sock,0666"})


def metrics_everywhere(stage: Stage) -> Config:
    return stage.config | {"metrics": {"tag": "m", "listen": f":{stage.config['inbounds'][0]['port']}"}}


def certificate_that_is_a_fifo(stage: Stage) -> Config:
    """The core would wait for its writer."""
    path = stage.folder / "fifo.pem"
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    certificates = [{"certificateFile": str(path), "keyFile": str(path)}]
    return stage.with_inbound(streamSettings={"security": "tls", "tlsSettings": {"certificates": certificates}})


def port_of_the_environment(stage: Stage) -> Config:
    return with_two(stage, {"port": "env:LISTEN_PORT_OF_TEST"}, {"port": int(ENVIRONMENT["LISTEN_PORT_OF_TEST"])})


SPOILED: dict[str, tuple[Callable[[Stage], Config], list[str]]] = {
    "hysteria without TLS": (hysteria_without_tls, ["inbound 'Other'", "TLS"]),
    "a new core": (all_else_changed, ["inbound 'Other'", "TLS"]),
    "metrics in use": (metrics_in_use, ["metrics", "in use"]),
    "two on one path": (two_on_one_path, ["'Other'", "'Third'", "in.sock"]),
    "two on one port": (two_on_one_port, ["'Other'", "'VLESS'"]),
    "fallback": (fallback_to_the_store, ["inbound 'Other': settings.fallbacks[0].dest", "own folder"]),
    "redirect": (redirect_to_the_core, ["outbound 'R': settings.redirect", "own folder"]),
    "no text": (lambda stage: stage.config | {"outbounds": [{"tag": "\ud800"}]}, ["outbounds[0].tag", "surrogate"]),
    "a log file": (lambda stage: stage.config | {"log": {"access": "/etc/passwd"}}, ["log.access '/etc/passwd'"]),
    "no folder": (lambda stage: stage.with_inbound(listen="/none/in.sock"), ["'Other'", "there is no folder '/none'"]),
    "a file": (file_in_the_way, ["'Other'", "no socket"]),
    "no socket there": (lambda stage: stage.with_inbound(listen="/proc/in.sock"), ["'Other'", "/proc/in.sock cannot"]),
    "a lock": (lock_in_the_way, ["'Other'", "locked.sock cannot be opened"]),
    "fallback to the metrics": (
        lambda stage: stage.with_inbound(
            settings={
                "decryption": "none",
                "clients": [],
                "fallbacks": [{"dest": f"[::ffff:127.0.0.1]:{ENVIRONMENT['METRICS_PORT']}"}],
            }
        ),
        ["inbound 'Other': settings.fallbacks[0].dest", "is METRICS_PORT"],
    ),
    "by the core's folder": (
        lambda stage: stage.with_inbound(
            settings={
                "decryption": "none",
                "clients": [],
                "fallbacks": [{"dest": f"/proc/self/cwd{stage.node.run_dir}/valkey.sock"}],
            }
        ),
        ["inbound 'Other': settings.fallbacks[0].dest"],
    ),
    "port 0": (lambda stage: stage.with_inbound(port=0), ["'Other'", "port 0"]),
    "port 70000": (lambda stage: stage.with_inbound(port=70000), ["'Other'", "port 70000"]),
    "port in other digits": (lambda stage: stage.with_inbound(port="٢٣٤٥٦"), ["'Other'", "port '٢٣٤٥٦' is not valid"]),
    "all addresses": (two_at_all_addresses, ["'Other'", "'Third'", "on all addresses"]),
    "two by links": (two_by_links, ["'Other'", "'Third'", "t.sock"]),
    "mode": (lambda stage: stage.with_inbound(listen=f"{stage.folder}/m,rw"), ["'Other'", "file's mode"]),
    "a folder": (lambda stage: stage.with_inbound(listen=f"{stage.folder}/"), ["'Other'", "is a folder"]),
    "metrics everywhere": (metrics_everywhere, ["'VLESS'", "that of metrics"]),
    "metrics by name": (
        lambda stage: stage.config | {"metrics": {"listen": "no.example:1"}},
        ["metrics", "no IP address"],
    ),
    "a FIFO": (certificate_that_is_a_fifo, ["'Other'", "certificateFile", "no regular file"]),
    "the environment's port": (port_of_the_environment, ["'Other'", "'Third'"]),
    "the environment's address": (
        lambda stage: stage.with_inbound(listen="env:LISTEN_PORT_OF_TEST"),
        ["'Other'", "which is no IP address"],
    ),
    "a transport by files": (
        lambda stage: stage.with_inbound(
            streamSettings={"network": "xdrive", "xdriveSettings": {"service": "local", "remoteFolder": "/etc/cron.d"}}
        ),
        ["'Other'", "remoteFolder '/etc/cron.d' is not below"],
    ),
    "a path with a NUL": (
        lambda stage: stage.with_inbound(
            settings={"decryption": "none", "clients": [], "fallbacks": [{"dest": "/run/a\0b"}]}
        ),
        ["inbound 'Other': settings.fallbacks[0].dest holds a NUL"],
    ),
    "a tunnel to the metrics": (
        lambda stage: stage.with_inbound(
            protocol="tunnel", settings={"portMap": {"1": f"localhost:{ENVIRONMENT['METRICS_PORT']}"}}
        ),
        ["inbound 'Other': settings.portMap.1", "is METRICS_PORT"],
    ),
    "where the core finds its files": (
        lambda stage: stage.config | {"env": {"XRAY_LOCATION_ASSET": "/etc"}},
        ["config: env 'XRAY_LOCATION_ASSET' is not for a config"],
    ),
    "a device": (
        lambda stage: stage.with_inbound(protocol="tun", settings={"name": "x" * 40}),
        ["'Other'", "at most 15 bytes"],
    ),
    "settings of a device": (
        lambda stage: stage.with_inbound(protocol="tun", settings={"mtu": "x"}),
        ["'Other'", "settings.mtu must be a whole number", "'x'"],
    ),
    "a tag": (lambda stage: stage.with_inbound(tag="a\nb"), ["inbound #2: tag 'a\\nb'", "control character"]),
    "no tag": (lambda stage: stage.with_inbound(port="5-1", tag=""), ["inbound #2", "'5-1'"]),
}


@pytest.mark.parametrize(("spoil", "words"), SPOILED.values(), ids=SPOILED)
async def test_refused_by_name_and_nothing_touched(
    stage: Stage, spoil: Callable[[Stage], Config], words: list[str]
) -> None:
    core = core_pid(stage.node)
    async with stage.client.hold("VLESS") as transfer:
        with pytest.raises(PanelError) as caught:
            await stage.start(spoil(stage))
        await transfer.wait_rounds(3)
    transfer.check()
    assert caught.value.status == 503
    assert all(word in caught.value.text[:SHOWN_CHARACTERS] for word in words), caught.value.text
    assert core_pid(stage.node) == core != 0
    assert (stage.folder / "file").exists() or "file" not in spoil.__name__


async def test_one_port_at_two_addresses_and_for_tcp_and_udp_is_legal(stage: Stage) -> None:
    port = free_port()
    config = stage.with_inbound(listen="127.0.0.3", port=port)
    settings = {"network": "udp", "address": "127.0.0.1", "port": 9}
    config["inbounds"] += [
        make_inbound("Third", "vless") | {"listen": "127.0.0.2", "port": port},
        {"tag": "Fourth", "protocol": "tunnel", "listen": "127.0.0.2", "port": port, "settings": settings},
    ]
    async with stage.client.hold("VLESS") as transfer:
        await stage.start(config)
        await transfer.wait_rounds(3)
    transfer.check()


async def test_a_listen_is_edited_under_a_core_that_holds_the_port(stage: Stage) -> None:
    port = free_port()
    await stage.start(stage.with_inbound(port=port))
    core = core_pid(stage.node)
    async with stage.client.hold("VLESS") as transfer:
        for listen in ("0.0.0.0", "::", "127.0.0.1", "127.0.0.2"):
            await stage.start(stage.with_inbound(port=port, listen=listen))
            with socket.create_connection(("127.0.0.2" if listen.endswith("2") else "127.0.0.1", port), 5.0):
                pass
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(stage.node) == core


async def test_a_port_from_the_environment_is_replaced_by_its_number(stage: Stage) -> None:
    port = int(ENVIRONMENT["LISTEN_PORT_OF_TEST"])
    await stage.start(stage.with_inbound(port="env:LISTEN_PORT_OF_TEST"))
    core = core_pid(stage.node)
    async with stage.client.hold("VLESS") as transfer:
        await stage.start(stage.with_inbound(port=port))
        assert core_pid(stage.node) == core, "\n".join(stage.node.output)
        await transfer.wait_rounds(3)
    transfer.check()


async def test_a_stale_socket_keeps_no_core_from_coming_up_or_back(stage: Stage) -> None:
    path = stage.folder / "stale.sock"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    config = stage.with_inbound(listen=str(path))

    def serves() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(path))
        return True

    await stage.start(config)
    assert serves()
    core = core_pid(stage.node)
    kill(core)
    await eventually(lambda: core_pid(stage.node) not in (0, core) and serves(), "it is back", errors=(OSError,))
    # Nor does one that a first start finds.
    await stage.panel.stop()
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
    await stage.start(config)
    assert serves()
    assert stat.S_ISSOCK(os.lstat(path).st_mode)


@pytest.mark.parametrize("part", ["routing", "dns"])
async def test_a_script_is_run_where_an_operator_allows_it_and_nowhere_else(stage: Stage, part: str) -> None:
    run, script = stage.folder / f"{part}.run", stage.folder / f"{part}.lua"
    source = f"io.open('{run}', 'w'):close()\nfunction HandleRoute() end\nfunction HandleDNSQuery() end\n"
    await asyncio.to_thread(script.write_text, source)
    core = core_pid(stage.node)
    with pytest.raises(PanelError, match=f"^503 START_FAILED: config: {part}.script .* is a script"):
        await stage.start(stage.config | {part: {"script": str(script)}})
    assert not run.exists(), "not by a check either"
    assert core_pid(stage.node) == core
    allowed = Path(shutil.copy(script, stage.scripts))
    await stage.start(stage.config | {part: {"script": str(allowed)}})
    assert run.exists()
    core = core_pid(stage.node)
    await asyncio.to_thread(allowed.write_text, f"{source}-- another one")
    await stage.start(stage.config | {part: {"script": str(allowed)}})
    assert core_pid(stage.node) != core, "what it reads has changed"


async def test_to_reach_the_nodes_own_sockets_is_not_enough(stage: Stage) -> None:
    """The bus asks for its password; the core's API cannot, but is for this user alone, in a folder for this user alone."""
    folder = stage.node.run_dir
    for path in (stage.node.state_dir, folder, folder / "valkey.sock", folder / "core.sock"):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    stranger = connect(f"unix://{folder / 'valkey.sock'}", connections=1)
    with pytest.raises(RedisError, match=r"[Aa]uthenticat"):
        await stranger.ping()
    await stranger.aclose()
    url = load(state_dir=stage.node.state_dir).bus_url
    ours = connect(url, connections=1)
    assert await ours.ping()
    await ours.aclose()
    secret = url.split("@")[0].rpartition(":")[2]
    for process in (psutil.Process(stage.node.pid), *psutil.Process(stage.node.pid).children(recursive=True)):
        assert secret not in str(process.cmdline()) + str(process.environ()), process
    assert secret not in stage.node.output_text


async def test_a_supervisor_that_may_open_no_more_files_goes_on(stage: Stage) -> None:
    """Changes are answered with 503, reads go on, nobody is disconnected, and all is well when there is room again."""
    node, panel = stage.node, stage.panel
    supervisor, core = psutil.Process(node.pid), core_pid(node)
    other = stage.with_inbound()
    limit = supervisor.rlimit(psutil.RLIMIT_NOFILE)
    async with stage.client.hold("VLESS") as transfer:
        supervisor.rlimit(psutil.RLIMIT_NOFILE, (10, limit[1]))
        try:
            assert (await panel.info()).started
            await panel.backend_stats()
            with pytest.raises(PanelError) as caught:
                await stage.start(other)
            assert (caught.value.status, core_pid(node)) == (503, core)
            assert "no room for another process" in caught.value.text
            kill(worker_pids(node)[0])
            await eventually(panel.info, "Gunicorn has another worker", errors=(OSError, NoAnswerError))
            await transfer.wait_rounds(3)
        finally:
            supervisor.rlimit(psutil.RLIMIT_NOFILE, limit)
        await stage.start(other)
        await panel.sync_user(make_user("more@e2e", TAGS))
        await transfer.wait_rounds(3)
    transfer.check()
    assert core_pid(node) == core
    assert node.returncode is None
