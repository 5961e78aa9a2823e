"""The state folder, its lock, the key and the certificate."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import socket
import ssl
import stat
import sys
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from pgnode.errors import OperatorError, SettingsError, StateDirBusyError
from pgnode.settings import Settings, load
from pgnode.supervisor.host.identity import (
    ensure_identity,
    lock_state_dir,
    machine_addresses,
    note_key_shown,
    prepare_state_dir,
)


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    loaded = load(state_dir=folder / "state", api_key=None, api_key_file=None)
    prepare_state_dir(loaded)
    yield loaded
    shutil.rmtree(folder)


def test_key_and_certificate_are_made_once(settings: Settings) -> None:
    first = ensure_identity(settings)
    assert first.key_is_new
    assert first.cert_is_new
    assert str(uuid.UUID(first.api_key)) == first.api_key
    second = ensure_identity(settings)
    assert second == first, "nobody has seen them yet"
    note_key_shown(settings)
    note_key_shown(settings)
    third = ensure_identity(settings)
    assert not third.key_is_new
    assert not third.cert_is_new
    assert third.api_key == first.api_key


def test_addresses_for_a_panel(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def address(family: socket.AddressFamily, text: str) -> SimpleNamespace:
        return SimpleNamespace(family=family, address=text)

    found = {
        "lo": [address(socket.AF_INET, "127.0.0.1")],
        "eth0": [
            address(socket.AF_INET6, "fe80::1%eth0"),
            address(socket.AF_INET6, "2001:db8::1"),
            address(socket.AF_INET, "203.0.113.7"),
        ],
    }
    monkeypatch.setattr(psutil, "net_if_addrs", lambda: found)
    assert machine_addresses(settings) == ["203.0.113.7", "2001:db8::1"]
    assert machine_addresses(settings.model_copy(update={"node_host": "192.0.2.1"})) == ["192.0.2.1"]
    assert machine_addresses(settings.model_copy(update={"node_host": "127.0.0.1"})) == []


def test_files_are_private(settings: Settings) -> None:
    ensure_identity(settings)
    assert stat.S_IMODE(settings.state_dir.stat().st_mode) == 0o700
    for path in (settings.key_file, settings.cert_file, settings.cert_key_file):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


def test_the_certificate_is_what_a_panel_takes(settings: Settings) -> None:
    ensure_identity(settings)
    pem = settings.cert_file.read_text()
    assert len(pem) < 2048
    certificate = x509.load_pem_x509_certificate(pem.encode())
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "127.0.0.1" in [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert "localhost" in names.get_values_for_type(x509.DNSName)
    context = ssl.create_default_context(cadata=pem)
    context.verify_flags |= ssl.VerifyFlags.VERIFY_X509_STRICT
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(settings.cert_file, settings.cert_key_file)


def test_a_spoiled_key_file_is_refused_not_replaced(settings: Settings) -> None:
    settings.key_file.write_text("not a key")
    with pytest.raises(SettingsError, match="does not hold an API key"):
        ensure_identity(settings)
    assert settings.key_file.read_text() == "not a key"


def test_a_key_of_the_settings_is_not_written_anywhere(settings: Settings) -> None:
    key = str(uuid.uuid4())
    who = ensure_identity(settings.model_copy(update={"api_key": key}))
    assert who.api_key == key
    assert not settings.key_file.exists()


def test_one_at_a_time(settings: Settings) -> None:
    with lock_state_dir(settings):
        with pytest.raises(StateDirBusyError) as caught:
            lock_state_dir(settings)
        assert f"pid {os.getpid()}" in str(caught.value)
        assert str(settings.state_dir) in str(caught.value)
    lock_state_dir(settings).close()


def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OperatorError, match=r"STATE_DIR=.*cannot be used"):
        prepare_state_dir(load(state_dir=tmp_path / "file" / "state"))


@pytest.mark.parametrize("name", ["run", "tls", "assets"])
@pytest.mark.parametrize(
    ("odd", "said"), [("file", "a file"), ("fifo", "a FIFO"), ("dangling", "a link that leads nowhere")]
)
def test_what_is_in_place_of_a_folder_is_named(tmp_path: Path, name: str, odd: str, said: str) -> None:
    place = tmp_path / name
    match odd:
        case "file":
            place.touch()
        case "fifo":
            os.mkfifo(place)
        case _:
            place.symlink_to("nothing")
    with pytest.raises(SettingsError) as caught:
        prepare_state_dir(load(state_dir=tmp_path))
    assert str(caught.value) == f"{place} is {said}, and has to be a folder: move it away, then start the node again"


@pytest.mark.parametrize("name", ["run", "tls", "."])
def test_a_folder_of_somebody_else_is_named(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / name
    monkeypatch.setattr(os, "access", lambda path, _mode: path != folder)
    with pytest.raises(SettingsError, match="may not be read by this user") as caught:
        prepare_state_dir(load(state_dir=tmp_path))
    assert str(caught.value).startswith(str(folder))


def put_in_place(path: Path, odd: str) -> None:
    """Put something where a file should be."""
    match odd:
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/null")
        case "bytes":
            path.write_bytes(b"\xff\xfe")
        case "huge":
            path.write_bytes(b"x" * 1_000_000)


@pytest.mark.parametrize("odd", ["folder", "fifo", "device", "bytes", "huge"])
def test_whatever_is_in_place_of_the_key_is_refused(settings: Settings, odd: str) -> None:
    put_in_place(settings.key_file, odd)
    with pytest.raises(SettingsError, match=r"api_key .*the node makes a new"):
        ensure_identity(settings)


@pytest.mark.parametrize("odd", ["folder", "fifo", "device"])
def test_whatever_is_in_place_of_the_certificate_is_refused(settings: Settings, odd: str) -> None:
    put_in_place(settings.cert_file, odd)
    with pytest.raises(SettingsError, match=r"cert\.pem is no regular file: move it away"):
        ensure_identity(settings)


@pytest.mark.parametrize("odd", ["folder", "fifo", "device"])
def test_whatever_is_in_place_of_the_lock_is_refused(settings: Settings, odd: str) -> None:
    put_in_place(settings.run_dir / "node.lock", odd)
    with pytest.raises(
        SettingsError, match=r"node\.lock (is no regular file: remove it|cannot be opened: Is a directory)"
    ):
        lock_state_dir(settings)


def test_a_lock_with_anything_in_it_is_one(settings: Settings) -> None:
    (settings.run_dir / "node.lock").write_bytes(b"\xff" * 1000)
    with lock_state_dir(settings):
        assert (settings.run_dir / "node.lock").read_text() == f"{os.getpid()}\n"


def test_a_disk_that_takes_nothing_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # The pid in the lock is for people only.
    monkeypatch.setattr(os, "ftruncate", full)
    lock_state_dir(settings).close()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        SettingsError, match=r"api_key cannot be written: No space left on device; let this user write STATE_DIR"
    ):
        ensure_identity(settings)


def test_a_file_for_the_key_that_cannot_be_made_is_told_by_its_setting(settings: Settings, tmp_path: Path) -> None:
    elsewhere = settings.model_copy(update={"api_key_file": tmp_path / "none" / "key"})
    with pytest.raises(
        SettingsError,
        match=r"none/key cannot be written: No such file or directory; let this user write in its folder, which has to exist, "
        "and make room there, or set API_KEY_FILE to something else",
    ):
        ensure_identity(elsewhere)


def test_a_file_system_without_locks_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_arguments: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", none_left)
    with pytest.raises(SettingsError, match="cannot be locked: No locks available; put STATE_DIR on a local disk"):
        lock_state_dir(settings)


def test_a_certificate_names_the_address_that_is_listened_on(settings: Settings) -> None:
    ensure_identity(settings.model_copy(update={"node_host": "203.0.113.7"}))
    certificate = x509.load_pem_x509_certificate(settings.cert_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert "203.0.113.7" in [str(address) for address in names.get_values_for_type(x509.IPAddress)]


def test_what_hinders_the_process_that_makes_the_certificate_is_told(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = settings.model_copy(
        update={"cert_names": ",".join(f"{number}.{'a' * 60}.example.com" for number in range(40))}
    )
    with pytest.raises(OperatorError, match="more than a panel takes: give fewer names"):
        ensure_identity(long)
    settings.cert_key_file.mkdir()
    with pytest.raises(SettingsError, match="is no regular file"):
        ensure_identity(settings)
    settings.cert_key_file.rmdir()
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONHOME", "/nowhere")
        with pytest.raises(OperatorError, match=r"no certificate could be made: .*; set SSL_CERT_FILE"):
            ensure_identity(settings)
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(OperatorError, match=r"cannot be run: .*No such file"):
        ensure_identity(settings)
    assert not settings.cert_file.exists()
