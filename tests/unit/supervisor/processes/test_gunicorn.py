"""How Gunicorn is run, and when it counts as ready."""

from __future__ import annotations

import asyncio
import os
import ssl
from pathlib import Path

import pytest

from pgnode.os_support.aio import end_tasks
from pgnode.settings import Settings, load
from pgnode.settings.handover import READY_VARIABLE, SOCKETS_VARIABLE, VARIABLE, Handover
from pgnode.supervisor.processes import gunicorn
from tests.support.identities import make_identity
from tests.unit.supervisor.processes.test_ports import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=str(tmp_path), node_host="127.0.0.1", service_port=free_port(), api_port=free_port())
    make_identity(found)
    return found


def test_it_gets_the_settings_of_the_supervisor(settings: Settings) -> None:
    spec = gunicorn.spec(settings, Handover(7))
    assert spec.name == "gunicorn"
    assert spec.environment[VARIABLE] == "7"
    assert spec.pass_fds == (7,)
    assert f"file:{gunicorn.CONFIGURATION}" in spec.command
    assert gunicorn.CONFIGURATION.is_file()


async def test_it_is_ready_when_a_handshake_succeeds(settings: Settings) -> None:
    ready = asyncio.ensure_future(gunicorn.spec(settings, Handover(7)).ready())
    port = settings.service_port
    plain = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port)
    done, _ = await asyncio.wait({ready}, timeout=0.2)
    assert not done, "a port that is open is not enough"
    plain.close()
    await plain.wait_closed()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.cert_file, settings.cert_key_file)
    async with await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", port, ssl=context):
        async with asyncio.timeout(10):
            await ready


def test_it_listens_on_the_sockets_of_the_supervisor(settings: Settings) -> None:
    spec = gunicorn.spec(settings, Handover(7), lambda: [8, 9])
    attached = spec.attach()
    assert attached.environment[SOCKETS_VARIABLE] == "8,9"
    writer = int(attached.environment[READY_VARIABLE])
    assert list(attached.descriptors) == [8, 9, writer]
    os.close(writer)


async def test_a_new_worker_says_so_itself() -> None:
    signal = gunicorn.WorkerSignal()
    await signal.wait()
    worker = os.dup(signal.open())
    assert "WorkerSignal" in repr(signal)
    waiting = asyncio.create_task(signal.wait())
    done, _ = await asyncio.wait({waiting}, timeout=0.05)
    assert not done
    os.write(worker, b".")
    async with asyncio.timeout(10):
        await waiting
    os.close(worker)
    signal.close()


async def test_where_nobody_is_left_to_say_it_the_end_of_the_process_tells() -> None:
    signal = gunicorn.WorkerSignal()
    signal.open()
    waiting = asyncio.create_task(signal.wait())
    done, _ = await asyncio.wait({waiting}, timeout=0.1)
    assert not done
    await end_tasks([waiting])
    signal.close()
