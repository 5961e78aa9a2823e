"""What a core runs, written down and read again by a node that could not make it."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from pgnode.settings import Settings
from pgnode.supervisor.lifecycle.kept_spec import decode, encode
from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.testing.configs import make_config, make_inbound, plain_inbounds
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import render

SAMPLES = Path(__file__).parents[3] / "samples"


def spec_of(config: str, tmp_path: Path, *, exclude: str = "") -> RunSpec:
    message = pb.Backend(config=config, keep_alive=30, exclude_inbounds=[exclude] if exclude else [])
    return RunSpec.read(message, Settings(state_dir=tmp_path, xray_assets_path=None))


def wide() -> str:
    log = {"loglevel": "info", "access": "a.log", "error": "none"}
    rules = [{"outboundTag": "BLOCK", "domain": ["a.example"], "ruleTag": "r"}]
    untagged = {key: value for key, value in make_inbound("x", "vless").items() if key != "tag"}
    inbounds = [*plain_inbounds(), make_inbound("door", "dokodemo-door", address="127.0.0.1"), untagged]
    return json.dumps({**make_config(inbounds), "log": log, "routing": {"rules": rules}, "burstObservatory": {}})


@pytest.mark.parametrize("exclude", ["", "Trojan"])
def test_what_is_kept_is_the_same_config(tmp_path: Path, exclude: str) -> None:
    spec = spec_of(wide(), tmp_path, exclude=exclude)
    kept = decode(encode(spec), spec.base.base_hash, "/elsewhere/core.sock")
    assert kept is not None
    assert (kept.message, kept.keep_alive_seconds, kept.known) == (spec.message, 30, True)
    assert kept.inbounds == spec.inbounds
    base, made = kept.base, spec.base
    assert (base.base_hash, base.inbounds, base.claims) == (made.base_hash, made.inbounds, made.claims)
    assert (base.access_log_path, base.error_log_path) == (made.access_log_path, made.error_log_path)
    assert base.observed_outbound_exclusions == made.observed_outbound_exclusions
    rendered = json.loads(render(base, {}))
    assert rendered["api"]["listen"] == "/elsewhere/core.sock"
    rendered["api"]["listen"] = json.loads(render(made, {}))["api"]["listen"]
    without_keys = json.loads(render(made, {}))
    for config in (rendered, without_keys):
        for inbound in config["inbounds"]:
            # The placeholder of Shadowsocks-2022 has another key each time.
            inbound.get("settings", {}).pop("clients", None)
    assert rendered == without_keys


def test_what_is_of_another_config_is_none(tmp_path: Path) -> None:
    spec = spec_of(wide(), tmp_path)
    assert decode(encode(spec), "another hash", "/core.sock") is None
    changing = RunSpec(spec.message, spec.base)
    assert decode(encode(changing), "", "/core.sock") is None, "a core that is being changed runs neither"


@pytest.mark.parametrize("damage", ["cut", "garbage", "empty", "version", "list", "document", "message"])
def test_what_cannot_be_read_is_none(tmp_path: Path, damage: str) -> None:
    spec = spec_of(wide(), tmp_path)
    content = encode(spec)
    parts = json.loads(content)
    match damage:
        case "cut":
            content = content[:100]
        case "garbage":
            content = b"\xff\x00\xfe"
        case "empty":
            content = b""
        case "version":
            content = json.dumps(parts | {"version": 99}).encode()
        case "list":
            content = b"[" * 100_000
        case "document":
            content = json.dumps(parts | {"document": {"inbounds": [1]}}).encode()
        case "message":
            content = json.dumps(parts | {"message": base64.b64encode(b"\xff").decode()}).encode()
    assert decode(content, spec.base.base_hash, "/core.sock") is None
