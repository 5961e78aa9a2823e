"""What a start's config says."""

from __future__ import annotations

from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.settings import Settings
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.lifecycle.stage import config_of


def test_a_start_is_read(tmp_path: Path) -> None:
    message = pb.Backend(config=config_of("a", "b"), exclude_inbounds=["b"], keep_alive=30)
    spec = RunSpec.read(message, Settings(state_dir=tmp_path))
    assert (list(spec.inbounds), spec.keep_alive_seconds) == (["a"], 30)
    assert pb.Backend.FromString(spec.message) == message
    assert spec.base.base_hash[:8] in repr(spec)


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailedError):
        RunSpec.read(pb.Backend(config="{"), Settings(state_dir=tmp_path))
