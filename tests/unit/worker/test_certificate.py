"""New certificate files are taken when they fit together, for new connections alone."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from pgnode.worker import certificate
from pgnode.worker.certificate import CertificateFiles, LiveContext, live_context
from tests.support.certificates import make_certificate
from tests.support.polling import eventually


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    return make_certificate(tmp_path, ["one.example"], ["127.0.0.1"])


def replace(pair: tuple[Path, Path], tmp_path: Path, name: str) -> None:
    """Another certificate in the place of the one that is there."""
    folder = tmp_path / name
    folder.mkdir()
    for new, old in zip(make_certificate(folder, [name], ["127.0.0.1"]), pair, strict=True):
        new.replace(old)


def files(pair: tuple[Path, Path]) -> CertificateFiles:
    return CertificateFiles(*pair, check_seconds=0)


def test_a_new_pair_is_seen_once(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = files(pair)
    assert not found.changed()
    replace(pair, tmp_path, "two.example")
    assert found.changed()
    assert not found.changed()
    assert found.read() == (pair[0].read_bytes(), pair[1].read_bytes())
    assert repr(found) == f"CertificateFiles({pair[0]})"


def test_files_that_do_not_fit_are_not_taken(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = files(pair)
    (tmp_path / "other").mkdir()
    other_cert, other_key = make_certificate(tmp_path / "other", ["two.example"], ["127.0.0.1"])
    shutil.copy(other_cert, pair[0])
    assert not found.changed()
    pair[0].unlink()
    assert not found.changed(), "a file that is away for a moment"
    shutil.copy(other_cert, pair[0])
    shutil.copy(other_key, pair[1])
    assert found.changed()


def test_looks_are_few(pair: tuple[Path, Path], tmp_path: Path) -> None:
    found = CertificateFiles(*pair, check_seconds=3600)
    replace(pair, tmp_path, "two.example")
    assert not found.changed()


async def served_by(context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection gets."""
    async with await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        client.check_hostname, client.verify_mode = False, ssl.CERT_NONE
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
        try:
            found = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        finally:
            writer.transport.abort()
        return bytes(found)


def on_disk(pair: tuple[Path, Path]) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pair[0].read_text())


async def test_a_listening_socket_follows_the_files(pair: tuple[Path, Path], tmp_path: Path) -> None:
    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        return context

    live = LiveContext(files(pair), make)
    following = asyncio.create_task(live.follow(0.01))
    first = on_disk(pair)
    assert await served_by(live.context) == first
    replace(pair, tmp_path, "two.example")
    assert on_disk(pair) != first

    async def renewed() -> bool:
        return await served_by(live.context) == on_disk(pair)

    await eventually(renewed, "the new certificate is served")
    following.cancel()


async def test_a_context_is_followed_for_as_long_as_its_loop_runs(pair: tuple[Path, Path]) -> None:
    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        return context

    before = set(certificate._following)
    context = live_context(*pair, make)
    [task] = certificate._following - before
    assert await served_by(context) == on_disk(pair)
    task.cancel()
    await eventually(lambda: task not in certificate._following, "it is let go of")
