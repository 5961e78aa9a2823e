"""How Gunicorn is run, and when it counts as ready."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import pytest

from pgnode.settings import Settings, load
from pgnode.settings.handover import VARIABLE, Handover
from pgnode.supervisor.host import identity
from pgnode.supervisor.processes import gunicorn
from tests.unit.supervisor.processes.test_ports import free_port


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    found = load(state_dir=str(tmp_path), node_host="127.0.0.1", service_port=free_port(), api_port=free_port())
    identity.prepare_state_dir(found)
    identity.ensure_identity(found)
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
