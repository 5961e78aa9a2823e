"""The folder of downloaded cores: what is unpacked, kept, chosen and left aside."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

from pgnode.errors import UpdateFailedError
from pgnode.supervisor.maintenance.core_store import CoreStore

LIMIT_BYTES = 1000


@pytest.fixture
def store(tmp_path: Path) -> CoreStore:
    made = CoreStore(tmp_path, None, LIMIT_BYTES)
    made.clean()
    return made


def archive(store: CoreStore, members: Mapping[str, bytes]) -> Path:
    path = store.staging / "release.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for name, content in members.items():
            target.writestr(name, content)
    return path


def add(store: CoreStore, version: str) -> Path:
    store.clean()
    store.unpack(archive(store, {"xray": version.encode()}))
    path = store.take_over(version)
    store.select(version)
    store.drop_staging()
    return path


def begin(store: CoreStore, version: str) -> Path:
    """The core is being exchanged for this one."""
    store.clean()
    store.unpack(archive(store, {"xray": version.encode()}))
    path = store.take_over(version)
    store.begin(version)
    store.drop_staging()
    return path


def test_only_the_core_is_unpacked(store: CoreStore, tmp_path: Path) -> None:
    path = store.unpack(archive(store, {"../../evil": b"x", "geoip.dat": bytes(5000), "xray": b"core"}))
    assert path.read_bytes() == b"core"
    assert path.stat().st_mode & 0o777 == 0o700
    assert {entry.name for entry in store.staging.iterdir()} == {"release.zip", "xray"}
    assert {entry.name for entry in tmp_path.iterdir()} == {"cores"}


@pytest.mark.parametrize(
    ("members", "words"),
    [({}, "no 'xray'"), ({"bin/xray": b""}, "no 'xray'"), ({"xray": bytes(LIMIT_BYTES + 1)}, "too large")],
)
def test_zips_without_a_core_of_sane_size(store: CoreStore, members: dict[str, bytes], words: str) -> None:
    with pytest.raises(UpdateFailedError, match=words):
        store.unpack(archive(store, members))


def test_zips_that_are_none_or_lie_about_a_size(store: CoreStore) -> None:
    path = store.staging / "release.zip"
    path.write_bytes(b"PK\x03\x04 but no zip")
    with pytest.raises(UpdateFailedError, match="cannot be unpacked"):
        store.unpack(path)
    data = archive(store, {"xray": bytes(5000)}).read_bytes()
    real, lie = (5000).to_bytes(4, "little"), (10).to_bytes(4, "little")
    path.write_bytes(data.replace(real, lie))
    with pytest.raises(UpdateFailedError, match=r"cannot be unpacked|too large"):
        store.unpack(path)


def test_the_last_two_choices_are_kept(store: CoreStore) -> None:
    paths = [add(store, version) for version in ("1.0.0", "1.0.1", "1.0.2")]
    assert [path.exists() for path in paths] == [False, True, True]
    assert store.selected() == paths[2]
    assert store.kept("1.0.1") == paths[1]
    assert store.kept("1.0.0") is None
    paths[1].write_bytes(b"damaged")
    assert store.kept("1.0.1") is None
    store.forget_unselected("1.0.2")
    assert store.selected() == paths[2], "what was chosen stays"


def test_the_later_decision_counts(store: CoreStore, tmp_path: Path) -> None:
    path = add(store, "1.0.0")
    assert CoreStore(tmp_path, None, LIMIT_BYTES).selected() == path
    assert CoreStore(tmp_path, Path("/usr/bin/xray"), LIMIT_BYTES).selected() is None, "set after the choice"
    later = CoreStore(tmp_path, Path("/usr/bin/xray"), LIMIT_BYTES)
    path = add(later, "1.0.1")
    assert later.selected() == path, "chosen after it was set"
    assert CoreStore(tmp_path, None, LIMIT_BYTES).selected() is None, "unset after the choice"


@pytest.mark.parametrize("record", ["", "[]", '{"version": "../../x", "sha256": "", "kept": [], "instead_of": ""}'])
def test_a_record_that_cannot_be_read_is_no_choice(store: CoreStore, tmp_path: Path, record: str) -> None:
    add(store, "1.0.0")
    (tmp_path / "cores" / "chosen.json").write_text(record)
    assert store.selected() is None
    assert add(store, "1.0.1") == store.selected()


def test_a_core_that_is_gone_is_no_choice(store: CoreStore) -> None:
    path = add(store, "1.0.0")
    path.chmod(0o600)
    assert store.selected() is None or path.stat().st_uid == 0, "root may run it only with a bit set"
    path.unlink()
    assert store.selected() is None


def test_an_exchange_is_noted_until_it_is_selected_or_given_up(store: CoreStore, tmp_path: Path) -> None:
    assert store.begun() is None
    path = begin(store, "1.0.0")
    assert store.begun() == "1.0.0"
    store.select("1.0.0")
    assert (store.begun(), store.selected()) == (None, path)
    begin(store, "1.0.1")
    store.give_up("1.0.1")
    assert store.begun() is None
    begin(store, "1.0.0")
    store.give_up("1.0.0")
    assert store.selected() == path, "what is selected stays"
    assert {entry.name for entry in (tmp_path / "cores").iterdir()} == {"1.0.0", "chosen.json"}


def test_an_exchange_for_a_core_that_was_changed_or_with_another_setting_is_none(
    store: CoreStore, tmp_path: Path
) -> None:
    path = begin(store, "1.0.0")
    assert CoreStore(tmp_path, Path("/usr/bin/xray"), LIMIT_BYTES).begun() is None
    path.write_bytes(b"damaged")
    assert store.begun() is None
    path.unlink()
    assert store.begun() is None


@pytest.mark.parametrize("note", ["", "[]", "{}", '{"version": 1, "sha256": "", "instead_of": ""}'])
def test_a_note_of_an_exchange_that_cannot_be_read(store: CoreStore, tmp_path: Path, note: str) -> None:
    (tmp_path / "cores" / "coming.json").write_text(note)
    assert store.begun() is None


def test_what_interrupted_updates_left_is_removed(store: CoreStore, tmp_path: Path) -> None:
    for version in ("1.0.0", "1.0.1"):
        add(store, version)
    store.clean()
    store.unpack(archive(store, {"xray": b"core"}))
    store.take_over("1.0.2")
    coming = begin(store, "1.0.3")
    store.clean()
    store.clear_up()
    left = {entry.name for entry in (tmp_path / "cores").iterdir()}
    assert left == {"1.0.0", "1.0.1", "1.0.3", "chosen.json", "coming.json"}
    assert coming.exists()
    (tmp_path / "cores" / "chosen.json").write_text("damaged")
    store.give_up()
    store.clear_up()
    assert (tmp_path / "cores" / "1.0.0").exists(), "nobody knows whether it is wanted"


def test_without_a_folder_there_is_nothing_to_remove(tmp_path: Path) -> None:
    CoreStore(tmp_path, None, LIMIT_BYTES).clear_up()
    assert list(tmp_path.iterdir()) == []
