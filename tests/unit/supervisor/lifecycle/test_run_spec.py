"""What a start's config says."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pgnode.errors import StartFailedError
from pgnode.settings import Settings
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.testing.wireguard import interface
from pgnode.wire import service_pb2 as pb
from tests.unit.supervisor.lifecycle.stage import config_of


def test_a_start_is_read(tmp_path: Path) -> None:
    message = pb.Backend(config=config_of("a", "b"), exclude_inbounds=["b"], keep_alive=30)
    spec = RunSpec.read(message, Settings(state_dir=tmp_path))
    assert (list(spec.inbounds), spec.keep_alive_seconds) == (["a"], 30)
    assert pb.Backend.FromString(spec.message) == message
    assert spec.base.base_hash[:8] in repr(spec)


def test_the_same_start_is_known_again(tmp_path: Path) -> None:
    settings, config = Settings(state_dir=tmp_path), config_of("a", "b")
    spec = RunSpec.read(pb.Backend(config=config, exclude_inbounds=["b", "a"]), settings)
    later = RunSpec.read(pb.Backend(config=config, exclude_inbounds=["a", "b"], keep_alive=9), settings)
    assert spec.asks_the_same(spec)
    assert spec.asks_the_same(later)
    assert not spec.asks_the_same(RunSpec.read(pb.Backend(config=config), settings))
    assert later.as_runs(spec) == RunSpec(later.message, spec.base, 9)


def test_of_a_core_that_was_found_perhaps_only_the_hash_is_known() -> None:
    spec = RunSpec.unknown(b"\xff", "abc")
    assert (spec.message, spec.base.base_hash, spec.known, spec.inbounds) == (b"\xff", "abc", False, {})
    assert spec.base.claims == []


def test_a_wireguard_start_with_what_the_operator_wants(tmp_path: Path) -> None:
    message = pb.Backend(type=pb.WIREGUARD, config=json.dumps(interface()))
    spec = RunSpec.read(message, Settings(state_dir=tmp_path))
    assert (spec.core_type, list(spec.inbounds)) == ("wireguard", ["wg0"])
    assert RunSpec.read(pb.Backend(config=config_of("a")), Settings(state_dir=tmp_path)).core_type == "xray"
    path = tmp_path / "out.json"
    path.write_text('{"protocol": "socks", "settings": {"servers": []}}')
    settings = Settings(state_dir=tmp_path, wg_egress_outbound_file=path, wg_egress_dns="9.9.9.9, 1.1.1.1")
    document = RunSpec.read(message, settings).base.document
    assert [outbound["protocol"] for outbound in document["outbounds"]] == ["socks", "dns"]
    assert document["dns"]["servers"] == ["9.9.9.9", "1.1.1.1"]


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"{", "not valid JSON"), (b"\xff", "is no text in UTF-8"), (None, "cannot be read: No such file or directory$")],
)
def test_an_outbound_of_the_operator_that_cannot_be(tmp_path: Path, content: bytes | None, text: str) -> None:
    path = tmp_path / "out.json"
    if content is not None:
        path.write_bytes(content)
    settings = Settings(state_dir=tmp_path, wg_egress_outbound_file=path)
    with pytest.raises(StartFailedError, match=f"WG_EGRESS_OUTBOUND_FILE {path}.*{text}"):
        RunSpec.read(pb.Backend(type=pb.WIREGUARD, config=json.dumps(interface())), settings)


def test_what_is_no_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartFailedError):
        RunSpec.read(pb.Backend(config="{"), Settings(state_dir=tmp_path))
