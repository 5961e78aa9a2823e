"""The node's own certificate: its names, its end, and what hinders it."""

from __future__ import annotations

import datetime
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509

from pgnode.errors import OperatorError, SettingsError
from pgnode.os_support.files import write_atomically
from pgnode.settings import Settings, handover, load
from pgnode.supervisor.host import identity, own_certificate
from pgnode.supervisor.host.certificate import check_pair
from pgnode.supervisor.host.identity import prepare_state_dir
from pgnode.supervisor.host.own_certificate import make_certificate


@pytest.fixture
def settings() -> Iterator[Settings]:
    folder = Path(tempfile.mkdtemp(prefix="pgn"))
    loaded = load(state_dir=folder / "state", api_key=None, api_key_file=None)
    prepare_state_dir(loaded)
    yield loaded
    shutil.rmtree(folder)


def names_of(settings: Settings) -> list[str]:
    certificate = x509.load_pem_x509_certificate(settings.cert_file.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names if isinstance(name, (x509.DNSName, x509.IPAddress))]


def test_names_that_were_asked_for_are_in_the_certificate_once(settings: Settings) -> None:
    named = settings.model_copy(update={"cert_names": "node.example.com,203.0.113.9", "node_host": "192.0.2.1"})
    make_certificate(named, ["203.0.113.9", "2001:db8::9"], days=3)
    found = names_of(named)
    assert {"localhost", "node.example.com", "203.0.113.9", "2001:db8::9", "192.0.2.1", "127.0.0.1"} <= {*found}
    assert len(found) == len({*found})
    pem, until = check_pair(named)
    assert pem.startswith(b"-----BEGIN")
    assert (until - datetime.datetime.now(datetime.UTC)).days in (2, 3)
    with pytest.raises(OperatorError, match="more than a panel takes: give fewer names"):
        make_certificate(named, [f"{number}.{'a' * 60}.example.com" for number in range(40)])
    assert names_of(named) == found


def test_a_certificate_that_cannot_be_written_leaves_the_pair_that_there_is(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_certificate(settings)
    pair = check_pair(settings)
    owners: list[object] = []

    def full(path: Path, text: str, *, owner: tuple[int, int] | None) -> None:
        owners.append(owner)
        if path == settings.cert_file:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write_atomically(path, text)

    monkeypatch.setattr(identity, "write_atomically", full)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(SettingsError, match="No space left on device"):
        make_certificate(settings)
    assert check_pair(settings) == pair
    found = settings.state_dir.stat()
    assert owners == [(found.st_uid, found.st_gid)] * 3


def test_a_process_makes_it_for_the_settings_that_are_handed_over(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = handover.hand_over(settings)
    monkeypatch.setenv(handover.VARIABLE, str(given.descriptor))
    assert own_certificate.main() == 0
    assert check_pair(settings)
    settings.cert_file.unlink()
    settings.cert_file.mkdir()
    assert own_certificate.main() == SettingsError.exit_code
    assert "cert.pem cannot be written" in capsys.readouterr().out
    os.close(given.descriptor)
