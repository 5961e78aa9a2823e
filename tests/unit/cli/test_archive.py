"""The file of a backup: whole, or refused."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pgnode.cli.archive import FORMAT, Manifest, describe, read_archive, write_archive
from pgnode.errors import OperatorError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "gathered"
    (made / "tls").mkdir(parents=True)
    (made / "state.db").write_bytes(bytes(range(256)) * 9000)
    (made / "tls/cert.pem").write_text("certificate")
    (made / "other").write_text("no part of it")
    return made


def manifest_of(folder: Path) -> Manifest:
    return Manifest("0.6.0", 2, 1_700_000_000.5, "node-1", 3, 1, 7, 500, "ab", describe(folder))


@pytest.fixture
def archive(folder: Path) -> bytes:
    target = io.BytesIO()
    write_archive(manifest_of(folder), folder, target)
    return target.getvalue()


def read(data: bytes, folder: Path) -> Manifest:
    folder.mkdir(exist_ok=True)
    return read_archive(io.BytesIO(data), folder, "the file")


def test_what_was_written_is_read(folder: Path, archive: bytes, tmp_path: Path) -> None:
    target = tmp_path / "read"
    assert read(archive, target) == manifest_of(folder)
    assert describe(target) == describe(folder)
    assert {path.name for path in target.iterdir()} == {"state.db", "tls"}
    assert (target / "state.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
def test_half_of_it_is_refused(archive: bytes, tmp_path: Path, share: float) -> None:
    with pytest.raises(OperatorError, match="the file is no backup of a node, or is damaged"):
        read(archive[: int(len(archive) * share)], tmp_path / "read")


def test_no_flipped_bit_gets_through(archive: bytes, folder: Path, tmp_path: Path) -> None:
    for number, place in enumerate(range(12, len(archive), max(1, len(archive) // 60))):
        damaged = bytearray(archive)
        damaged[place] ^= 0x10
        target = tmp_path / f"read{number}"
        try:
            read(bytes(damaged), target)
        except OperatorError:
            continue
        # Padding, or a checksum of tar's own entry that nobody needs.
        assert describe(target) == describe(folder)


def repacked(archive: bytes, change: Callable[[str, bytes], list[tuple[str, bytes, bytes]]]) -> bytes:
    """The archive with other entries: (name, content, type)."""
    target = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(archive)) as before, tarfile.open(fileobj=target, mode="w:gz") as after:
        for member in before.getmembers():
            content = before.extractfile(member)
            assert content is not None
            for name, data, kind in change(member.name, content.read()):
                entry = tarfile.TarInfo(name)
                entry.size, entry.type = len(data), kind
                if kind == tarfile.SYMTYPE:
                    entry.size, entry.linkname = 0, "/etc/passwd"
                after.addfile(entry, io.BytesIO(data))
    return target.getvalue()


def with_manifest(**changes: object) -> Callable[[str, bytes], list[tuple[str, bytes, bytes]]]:
    def change(name: str, data: bytes) -> list[tuple[str, bytes, bytes]]:
        if name == "manifest.json":
            data = json.dumps({**json.loads(data), **changes}).encode()
        return [(name, data, tarfile.REGTYPE)]

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda name, data: [(name, data, tarfile.REGTYPE)] if name != "manifest.json" else [], "begin with a manifest"),
        (lambda name, data: [(name, data, tarfile.REGTYPE)] if name != "state.db" else [], "state.db is missing"),
        (lambda name, data: [(name, data[1:] + b"x" if name == "state.db" else data, tarfile.REGTYPE)], "another hash"),
        (lambda name, data: [(name, data + b"x" if name == "state.db" else data, tarfile.REGTYPE)], "another size"),
        (lambda name, data: [(name, data, tarfile.REGTYPE), ("../evil", b"", tarfile.REGTYPE)], "evil"),
        (lambda name, data: [(name, data, tarfile.SYMTYPE if name == "state.db" else tarfile.REGTYPE)], "another size"),
        (with_manifest(members={"state.db": [1, "ab"], "../evil": [1, "ab"]}), "names other files"),
        (with_manifest(members={}), "names other files"),
        (with_manifest(members=7), "items"),
    ],
)  # fmt: skip
def test_what_else_may_be_in_it_is_refused(
    archive: bytes, tmp_path: Path, change: Callable[[str, bytes], list[tuple[str, bytes, bytes]]], words: str
) -> None:
    with pytest.raises(OperatorError, match=words):
        read(repacked(archive, change), tmp_path / "read")
    assert not (tmp_path / "evil").exists()


def test_a_later_form_is_not_guessed_at(archive: bytes, tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"of a newer pgnode \(9.9.9\)"):
        read(repacked(archive, with_manifest(format=FORMAT + 1, pgnode="9.9.9")), tmp_path / "read")
    assert read(repacked(archive, with_manifest(more="unknown")), tmp_path / "again").host == "node-1"
