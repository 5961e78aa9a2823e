"""Where log files may be, and that nothing else is written."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pgnode.settings import Settings
from pgnode.supervisor.core.log_files import LogFiles, append_lines
from pgnode.testing.configs import make_config, make_inbound
from pgnode.xray.config.document import parse_config


@pytest.fixture
def files(tmp_path: Path) -> LogFiles:
    (tmp_path / "logs").mkdir()
    (tmp_path / "other").mkdir()
    return LogFiles(tmp_path / "logs", [tmp_path / "other", tmp_path / "one.log"])


@pytest.mark.parametrize(
    "path",
    [
        "access.log",
        "deeper/access.log",
        "{top}/logs/a.log",
        "{top}/other/x/a.log",
        "{top}/one.log",
        "{top}/logs/../logs/a",
    ],
)
def test_paths_that_may_be_written(tmp_path: Path, files: LogFiles, path: str) -> None:
    asked = path.format(top=tmp_path)
    assert files.fault(asked) is None
    place = files.place(asked)
    assert place is not None
    append_lines(Path(place), b"one\ntwo")
    append_lines(Path(place), b"three")
    assert Path(place).read_bytes() == b"one\ntwo\nthree\n"


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../key",
        "{top}/logs/../key",
        "{top}/logsandmore/a.log",
        "{top}/logs/out/a.log",
        "/proc/self/root/etc/passwd",
        "{top}/two.log",
    ],
)
def test_paths_that_may_not(tmp_path: Path, files: LogFiles, path: str) -> None:
    (tmp_path / "logs" / "out").symlink_to("/etc")
    asked = path.format(top=tmp_path)
    assert "is not below" in (files.fault(asked) or "")
    assert files.place(asked) is None


@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_plain_files_are_written(tmp_path: Path, files: LogFiles, kind: str) -> None:
    path = tmp_path / "logs" / "odd"
    if kind == "link":
        path.symlink_to(tmp_path / "elsewhere")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    assert "is no plain file" in (files.fault("odd") or "")
    with pytest.raises(OSError, match=r".*"):
        append_lines(path, b"x")
    assert not (tmp_path / "elsewhere").exists()


def test_a_fifo_with_a_reader_is_no_plain_file_either(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    try:
        with pytest.raises(OSError, match="no plain file"):
            append_lines(tmp_path / "fifo", b"x")
    finally:
        os.close(reader)


def test_the_path_of_a_config_is_named(tmp_path: Path) -> None:
    files = LogFiles.of(Settings(state_dir=tmp_path, log_paths=f"{tmp_path}/a, /var/log/x"))
    for log, fault in (
        ({"access": "a.log"}, None),
        ({"error": "/etc/passwd"}, "log.error '/etc/passwd' is not below"),
        ({"access": "a\nb"}, "log.access 'a\\nb' holds the control character"),
    ):
        text = json.dumps({**make_config([make_inbound("a", "vless")]), "log": log})
        base = parse_config(text, exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)
        assert (files.config_fault(base) or "").startswith(fault or "")
        assert (files.config_fault(base) is None) == (fault is None)
    # The core takes a relative path of its own below "/".
    for path, fault in (
        ("/etc/passwd", "is not below"),
        ("etc/passwd", "is no whole path"),
        ("keys.log", "is no whole path"),
    ):
        stream = {"tlsSettings": {"masterKeyLog": path}}
        text = json.dumps(make_config([make_inbound("a", "vless", stream=stream)]))
        base = parse_config(text, exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)
        assert f"masterKeyLog '{path}' {fault}" in (files.config_fault(base) or "")
    assert files.place(None) is None
    assert str(tmp_path / "a") in repr(files)


@pytest.mark.parametrize(
    ("settings", "fault"),
    [
        ({"service": "local", "remoteFolder": "{top}/logs/x"}, None),
        ({"service": "local", "remoteFolder": "{top}/other"}, None),
        ({"service": "template", "remoteFolder": "/any"}, None),
        ({"remoteFolder": "/any"}, None),
        ({"service": "local", "remoteFolder": "{top}"}, "is not below"),
        ({"Service": "Local", "RemoteFolder": "/etc/cron.d"}, "RemoteFolder '/etc/cron.d' is not below"),
        ({"service": "local", "remoteFolder": "logs"}, "is no whole path"),
        ({"service": "local", "Service": "template", "remoteFolder": "/etc"}, "is not below"),
        ({"service": "local", "remoteFolder": "{top}/logs/file"}, "is no folder"),
        ({"service": "local", "remoteFolder": "{top}/logs/link"}, "is no folder"),
    ],
)
def test_the_folder_of_a_transport_by_files_is_where_log_files_may_be(
    tmp_path: Path, files: LogFiles, settings: dict[str, str], fault: str | None
) -> None:
    (tmp_path / "logs" / "file").touch()
    (tmp_path / "logs" / "link").symlink_to(tmp_path)
    xdrive = {key: value.format(top=tmp_path) for key, value in settings.items()}
    inbound = make_inbound("a", "vless", stream={"network": "xdrive", "xdriveSettings": xdrive})
    base = parse_config(json.dumps(make_config([inbound])), exclude_inbounds=(), api_socket="/x.sock", assets_dir=None)
    found = files.config_fault(base)
    assert (found is None) == (fault is None), found
    assert (fault or "") in (found or "")
    assert (found or "inbound 'a': streamSettings").startswith("inbound 'a': streamSettings")
