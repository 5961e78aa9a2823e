"""The node where its surroundings are odd: outputs that nobody reads, closed descriptors, few open files, secrets about."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from bench.moving_users import MovingUsers
from pgnode.testing.configs import make_config, make_inbound
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError
from pgnode.testing.ports import free_port
from pgnode.testing.processes import tree
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST, WITH_GRPC
from tests.support.certificates import make_certificate
from tests.support.polling import eventually
from tests.support.processes import core_pid
from tests.support.valkey import running_valkey

#: Seconds that starting and ending may take on a machine that is busy.
LONG = 60.0


@pytest_asyncio.fixture(loop_scope="session")
async def node(short_dir: Path) -> AsyncIterator[NodeProcess]:
    """A node that was not started."""
    found = NodeProcess(env={**FAST, "DEBUG": "true"}, state_dir=short_dir / "state")
    yield found
    await found.stop()


@contextlib.contextmanager
def running(
    node: NodeProcess, shell: str = 'exec "$@"', *, output: int | None = None, **environment: str
) -> Iterator[subprocess.Popen[bytes]]:
    """The node as a shell starts it; ``shell`` redirects its descriptors."""
    process = subprocess.Popen(
        ["sh", "-c", shell, "sh", sys.executable, "-m", "pgnode", "run"],
        env={**node.environment(), **environment},
        cwd=node.state_dir.parent,
        start_new_session=True,
        stdout=output,
        stderr=output,
    )
    try:
        yield process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(LONG)
        process.kill()
        process.wait()


async def answers(node: NodeProcess) -> None:
    async def asked() -> bool:
        async with node.panel() as panel:
            await panel.info()
        return True

    await eventually(asked, "the node answers", LONG, errors=(OSError, NoAnswerError))


async def started(node: NodeProcess) -> int:
    """Start a core with one user; returns its pid."""
    inbound = make_inbound("VLESS", "vless") | {"port": str(free_port())}
    async with node.panel(timeout_seconds=LONG) as panel:
        await panel.start(make_config([inbound]), [make_user("u0", ["VLESS"])])
    return core_pid(node)


@pytest.mark.parametrize(
    ("shell", "grpc_workers"),
    [
        ('exec "$@" 2>/dev/full >/dev/full', "0"),
        ('exec "$@" 2>&- >&- <&-', "1"),
        ('exec "$@" 2>&-', "0"),
        # A reader that takes one line and goes.
        ('"$@" 2>&1 | head -n 1 >/dev/null & wait', "0"),
    ],
    ids=["full", "closed", "no stderr", "reader gone"],
)
async def test_what_cannot_be_printed_ends_nothing(node: NodeProcess, shell: str, grpc_workers: str) -> None:
    # A slip, of which the node's first words are.
    with running(node, shell, SERVICE_PROT="1", GRPC_WORKERS=grpc_workers):
        try:
            await answers(node)
            await started(node)
            async with node.panel() as panel:
                assert (await panel.info()).started
        finally:
            for number in _supervisors(node):
                os.kill(number, signal.SIGTERM)
            await eventually(lambda: not _supervisors(node), "it ends when it is told to", LONG)


def _supervisors(node: NodeProcess) -> list[int]:
    """The processes that are this node's supervisor: by its command and its folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.cmdline()[1:] == ["-m", "pgnode", "run"] and process.environ().get("STATE_DIR") == str(
                node.state_dir
            ):
                found.append(process.pid)
    return found


async def test_a_reader_that_hangs_holds_up_nothing(node: NodeProcess) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    # Full before the node's first word.
    os.set_blocking(writer, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writer, b"x" * 512)
    os.set_blocking(writer, True)
    try:
        with running(node, output=writer, SERVICE_PROT="1") as process:
            await answers(node)
            await started(node)
            async with node.panel() as panel:
                assert (await panel.info()).started
                for number in range(50):
                    await panel.sync_user(make_user(f"u{number}", ["VLESS"]))
            process.terminate()
            assert await asyncio.to_thread(process.wait, LONG) == 0
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_character_set_without_our_characters(node: NodeProcess) -> None:
    file = node.state_dir.parent / "printed"
    with running(node, f'exec "$@" >{file} 2>&1', PYTHONIOENCODING="iso-8859-1:strict", LC_ALL="C", PYTHONUTF8="0"):
        await answers(node)
        await eventually(lambda: b"is ready" in file.read_bytes(), "the banner is printed", LONG)


async def test_a_terminal_that_is_closed_ends_nobody(node: NodeProcess) -> None:
    await node.start()
    core = await started(node)
    node.send_signal(signal.SIGHUP)
    await eventually(lambda: "no setting is different" in node.output_text, "it is told", LONG)
    async with node.panel() as panel:
        assert (await panel.info()).started
    assert core_pid(node) == core


async def test_no_child_knows_the_key_or_what_else_the_operator_keeps(short_dir: Path) -> None:
    canary = str(uuid.uuid4())
    variables = {
        "CLOUD_TOKEN": canary,
        "NOTIFY_SOCKET": f"/run/{canary}",
        "WANTED_BY_THE_CORE": "8443",
        # The library ends its process over the first, and prints what it receives with the second.
        "GRPC_POLL_STRATEGY": "none that is known",
        "GRPC_TRACE": "all",
    }
    node = NodeProcess(
        env={**WITH_GRPC, **variables, "PASS_ENVIRONMENT": "WANTED_BY_THE_CORE, OTHER"}, state_dir=short_dir / "state"
    )
    async with node:
        core = await started(node)
        children = [process for process in tree(node.pid) if process.pid != node.pid]
        assert core in [child.pid for child in children]
        assert len(children) >= 5
        for child in children:
            environment = child.environ()
            for secret in (node.api_key, canary):
                assert not [name for name, value in environment.items() if secret in value], child
                assert secret not in " ".join(child.cmdline())
        assert psutil.Process(core).environ()["WANTED_BY_THE_CORE"] == "8443"
        async with node.panel() as panel:
            await panel.info()
        assert node.api_key not in node.output_text
        assert "GRPC_POLL_STRATEGY has no effect" in node.output_text


async def test_what_is_edited_meanwhile_changes_no_worker(short_dir: Path) -> None:
    """A worker that is replaced has the settings of the others, whatever ``.env`` says by then."""
    node = NodeProcess(env={**FAST, "WEB_CONCURRENCY": "1"}, state_dir=short_dir / "state")
    async with node:
        (short_dir / ".env").write_text(f"API_KEY={uuid.uuid4()}\nMAX_BODY_MIB=1\nHTTP_PARSER=nonsense\n")
        for worker in [p for p in tree(node.pid) if "gunicorn" in " ".join(p.cmdline()) and p.ppid() != node.pid]:
            worker.kill()
        await answers(node)


async def test_every_process_may_open_as_many_files_as_it_is_allowed(short_dir: Path) -> None:
    node = NodeProcess(env=WITH_GRPC, state_dir=short_dir / "state")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, before[1]))
    try:
        await node.spawn()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    try:
        await node.wait_ready()
        limits = {process.name(): process.rlimit(resource.RLIMIT_NOFILE) for process in tree(node.pid)}
        assert {soft for soft, _ in limits.values()} == {before[1]}, limits
    finally:
        await node.stop()


async def test_a_certificate_that_cannot_be_served_is_told_at_once(short_dir: Path) -> None:
    folders = [short_dir / name for name in ("one", "two")]
    for folder in folders:
        folder.mkdir()
    pairs = [make_certificate(folder, ["one.example"], []) for folder in folders]
    node = NodeProcess(
        env={"SSL_CERT_FILE": str(pairs[0][0]), "SSL_KEY_FILE": str(pairs[1][1])}, state_dir=short_dir / "state"
    )
    await node.spawn()
    assert await node.wait(LONG) == 2
    assert f"pgnode: SSL_KEY_FILE={pairs[1][1]} is the key of another certificate" in node.output_text
    assert "Traceback" not in node.output_text
    assert "child is ready" not in node.output_text


async def test_two_nodes_with_one_prefix_are_told_apart(short_dir: Path) -> None:
    async with running_valkey() as valkey:
        nodes = [
            NodeProcess(env={**FAST, "REDIS_URL": valkey.url, "REDIS_PREFIX": "shared"}, state_dir=short_dir / name)
            for name in ("one", "two")
        ]
        first, second = nodes
        async with first:
            core = await started(first)
            await second.spawn()
            assert await second.wait(LONG) == 4
            assert "REDIS_PREFIX=shared is used by another node" in second.output_text
            assert f"pid {first.pid}, STATE_DIR={first.state_dir}" in second.output_text
            assert "Traceback" not in second.output_text
            other = f"pid {second.pid}, STATE_DIR={second.state_dir}"
            await eventually(lambda: other in first.output_text, "the first one names the second one, too", LONG)
            async with first.panel() as panel:
                assert (await panel.info()).started
            assert core_pid(first) == core
        # Who ends lets go of it.
        async with second:
            await started(second)


async def test_in_the_journal_each_line_has_its_priority_and_a_new_key_is_in_none(
    node: NodeProcess, short_dir: Path
) -> None:
    path = short_dir / "journal"
    with path.open("wb") as file:
        found = os.fstat(file.fileno())
        stream = f"{found.st_dev}:{found.st_ino}"
        with running(
            node, output=file.fileno(), JOURNAL_STREAM=stream, API_KEY="", LOG_FORMAT="text", GRPC_WORKERS="1"
        ) as process:
            await eventually(lambda: "the node is ready" in path.read_text(), "it is up", LONG)
            process.send_signal(signal.SIGUSR2)
            await eventually(lambda: "restarted in place" in path.read_text(), "it knows it still", LONG)
    text = path.read_text()
    odd = [
        line for line in text.splitlines() if re.match(r"<[2-7]>\[(critical|error|warning|info|debug)\] ", line) is None
    ]
    assert odd == []
    assert re.search(r"^<6>\[info\] supervisor\[\d+\]: the node is ready ", text, re.MULTILINE)
    assert (node.state_dir / "api_key").read_text().strip() not in text


async def test_process_1_reaps_what_others_leave(node: NodeProcess) -> None:
    """As in a container without an init."""
    own_user = "" if os.geteuid() == 0 else "--map-root-user "
    with running(node, f'exec unshare {own_user}--pid --fork --mount-proc --kill-child "$@"') as process:
        await answers(node)
        (supervisor,) = psutil.Process(process.pid).children()
        await started(node)
        (master,) = (child for child in supervisor.children() if "gunicorn" in " ".join(child.cmdline()))
        workers = master.children()
        assert workers
        master.kill()
        await eventually(lambda: not any(worker.is_running() for worker in workers), "they are no zombies", LONG)
        await answers(node)
        async with node.panel() as panel:
            assert (await panel.info()).started
        supervisor.terminate()
        assert await asyncio.to_thread(process.wait, LONG) == 0


async def test_python_ends_with_the_node_whatever_it_is_told(short_dir: Path) -> None:
    variables = {"PYTHONINSPECT": "1", "PYTHONWARNINGS": "error", "PYTHONSTARTUP": "/nonexistent"}
    node = NodeProcess(env={**WITH_GRPC, **variables}, state_dir=short_dir / "state")
    async with node:
        await started(node)
        assert await node.stop() == 0
    assert "Traceback" not in node.output_text


#: What a machine without room in /dev/shm, and one without the folder, show the node. In a mount namespace of its own.
WITHOUT_SHM = {
    "full": "mount -t tmpfs -o size=4k pgnode-test /dev/shm && ! head -c 99999 /dev/zero 2>/dev/null >/dev/shm/full",
    "missing": """set -e; mkdir dev; mount -t tmpfs pgnode-test dev
        for name in null zero full random urandom; do touch dev/$name; mount --bind /dev/$name dev/$name; done
        mount --rbind dev /dev; test ! -e /dev/shm""",
}


@pytest.mark.parametrize("how", list(WITHOUT_SHM))
async def test_large_snapshots_need_no_dev_shm(node: NodeProcess, how: str) -> None:
    if not _may_mount():
        pytest.skip("no mount namespace of its own is to be had: unshare(1), CAP_SYS_ADMIN")
    # So many that their statistics are held once for all workers.
    users, inbound = make_users(4_000, ["VLESS"]), make_inbound("VLESS", "vless")
    with running(node, f'exec unshare -m sh -c \'{WITHOUT_SHM[how]}\nexec "$@"\' sh "$@"'):
        await answers(node)
        async with node.panel(timeout_seconds=LONG) as panel:
            await panel.start(make_config([inbound]), users)
            async with MovingUsers(inbound["port"], users) as movers:
                for first in range(0, len(users), 100):
                    await movers.move(first, 100)

            async def served() -> bool:
                return {one.name for one in await panel.stats(pb.UsersStat)} == {user.email for user in users}

            await eventually(served, "every user has statistics", LONG)
        [supervisor] = _supervisors(node)
        mapped = [
            _maps(process.pid, "pgnode-shared-") for process in psutil.Process(supervisor).children(recursive=True)
        ]
        assert any(mapped)


def _may_mount() -> bool:
    """Whether this process gets a mount namespace of its own."""
    if shutil.which("unshare") is None:
        return False
    return subprocess.run(["unshare", "-m", "true"], check=False, capture_output=True).returncode == 0


def _maps(pid: int, part: str) -> bool:
    """Whether a process maps something that is called so."""
    return part in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")
