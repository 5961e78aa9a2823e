"""New certificate files are taken when they fit together, for new connections alone."""

from __future__ import annotations

import asyncio
import shutil
import ssl
from pathlib import Path

import pytest

from pgnode.os_support.aio import end_tasks
from pgnode.settings import load
from pgnode.worker import certificate
from pgnode.worker.certificate import CertificateFiles, LiveContext, live_context, served_files
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


async def test_what_was_made_before_the_fork_is_used_where_callers_are_dealt_with_alike(
    pair: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make() -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        return context

    monkeypatch.setattr(certificate, "_before_fork", None)
    before = set(certificate._following)
    first = await asyncio.to_thread(live_context, *pair, make, "ciphers")
    assert certificate._following == before, "nothing is followed without an event loop"
    replace(pair, tmp_path, "two.example")
    assert live_context(*pair, make, "other ciphers") is not first
    assert live_context(*pair, make, "ciphers") is first
    assert await served_by(first) == on_disk(pair), "its certificate is the newest all the same"
    for task in certificate._following - before:
        task.cancel()


def test_the_supervisors_copy_is_served_where_there_is_one(pair: tuple[Path, Path], tmp_path: Path) -> None:
    settings = load(state_dir=tmp_path / "state", ssl_cert_file=pair[0], ssl_key_file=pair[1])
    assert served_files(settings) == pair
    settings.run_dir.mkdir(parents=True)
    settings.served_pem.touch()
    assert served_files(settings) == (settings.served_pem, settings.served_pem)


async def test_files_that_change_once_more_while_they_are_read_end_nothing(
    pair: tuple[Path, Path], tmp_path: Path
) -> None:
    made: list[ssl.SSLContext | OSError] = []

    def make() -> ssl.SSLContext:
        if len(made) == 2:
            made.append(OSError("gone again"))
            raise OSError("gone again")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*pair)
        made.append(context)
        return context

    live = LiveContext(files(pair), make)
    following = asyncio.create_task(live.follow(0.01))
    replace(pair, tmp_path, "two.example")
    await eventually(lambda: len(made) == 3, "the new files were tried", 30)
    replace(pair, tmp_path, "three.example")

    async def renewed() -> bool:
        return await served_by(live.context) == on_disk(pair)

    await eventually(renewed, "the next pair is served", 30)
    await end_tasks([following])
