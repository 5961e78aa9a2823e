"""The record beside a core, and what it takes to know a process again."""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pgnode.xray.process.record import (
    COPY_NAME,
    RECORD_NAME,
    UNKNOWN_BOOT,
    CoreRecord,
    boot_id,
    read_record,
    read_records,
    start_ticks,
    write_record,
)

RECORD = CoreRecord(1234, 5678, "boot", "hash", "embedded", "embedded (Xray-core 1)")


def test_what_is_written_is_read(tmp_path: Path) -> None:
    assert read_record(tmp_path) is None
    write_record(tmp_path, RECORD)
    assert read_record(tmp_path) == RECORD
    assert sorted(os.listdir(tmp_path)) == [COPY_NAME, RECORD_NAME]
    assert (tmp_path / RECORD_NAME).stat().st_mode & 0o077 == 0


def test_a_record_of_an_earlier_version_names_no_core(tmp_path: Path) -> None:
    content = asdict(RECORD)
    del content["core"]
    (tmp_path / RECORD_NAME).write_text(json.dumps(content))
    read = read_record(tmp_path)
    assert read is not None
    assert read.core == ""


@pytest.mark.parametrize(
    "lie", [{"pid": "x"}, {"pid": 1}, {"pid": None}, {"start_ticks": 1.5}, {"boot_id": 1}, {"kind": []}, {"more": 1}]
)
def test_a_record_of_the_wrong_shape_is_none(tmp_path: Path, lie: dict[str, Any]) -> None:
    (tmp_path / RECORD_NAME).write_text(json.dumps(asdict(RECORD) | lie))
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_what_is_no_record_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / RECORD_NAME).write_text(text)
    assert read_record(tmp_path) is None


@pytest.mark.parametrize("damage", ["", "{", "[]", None])
def test_a_copy_is_read_where_the_record_is_damaged(tmp_path: Path, damage: str | None) -> None:
    write_record(tmp_path, RECORD)
    if damage is None:
        (tmp_path / RECORD_NAME).unlink()
    else:
        (tmp_path / RECORD_NAME).write_text(damage)
    assert read_record(tmp_path) == RECORD
    assert read_records(tmp_path) == [RECORD]
    other = replace(RECORD, pid=77)
    (tmp_path / RECORD_NAME).write_text(json.dumps(asdict(other)))
    assert read_records(tmp_path) == [other, RECORD]
    assert not other.is_of(RECORD)
    assert replace(RECORD, config_hash="another").is_of(RECORD)


def test_a_copy_that_cannot_be_written_does_not_say_what_was_before(tmp_path: Path) -> None:
    write_record(tmp_path, RECORD)
    (tmp_path / f"{COPY_NAME}.new").mkdir()
    (tmp_path / COPY_NAME).write_text(json.dumps(asdict(RECORD)))  # too short to be written over
    changed = replace(RECORD, config_hash="a hash that is longer than the one before")
    write_record(tmp_path, changed)
    assert read_records(tmp_path) == [changed]
    assert not (tmp_path / COPY_NAME).exists()
    (tmp_path / COPY_NAME).mkdir()
    write_record(tmp_path, RECORD)
    assert read_records(tmp_path) == [RECORD]


def test_this_process_is_known_again() -> None:
    ticks = start_ticks(os.getpid())
    assert ticks == start_ticks(os.getpid()) > 0
    assert time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK") >= 0
    assert start_ticks(2**22 + 1) == 0, "there is no such process"
    assert len(boot_id()) == 36
    # Containers may hide it: then a process is known by its pid and its start.
    assert boot_id(Path("/none")) == boot_id(Path("/dev/null")) == UNKNOWN_BOOT
