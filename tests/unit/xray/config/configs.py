"""Configs as a panel sends them, for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pgnode.xray.config.document import BaseConfig, parse_config

SAMPLES = Path(__file__).resolve().parents[3] / "samples"
USER_ID = "5783a3e7-e373-51cd-8642-c83782b807c5"


def parse(
    config: object,
    *,
    exclude: tuple[str, ...] = (),
    socket_path: str = "/run/x/api.sock",
    environment: Mapping[str, str] = MappingProxyType({}),
) -> BaseConfig:
    text = config if isinstance(config, str) else json.dumps(config)
    return parse_config(
        text, exclude_inbounds=exclude, api_socket=socket_path, assets_dir=None, environment=environment
    )


def sample(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((SAMPLES / f"{name}.json").read_text())
    return document


def vless(tag: str = "in", **more: Any) -> dict[str, Any]:
    return {
        "tag": tag,
        "listen": "127.0.0.1",
        "port": 20000,
        "protocol": "vless",
        "settings": {"decryption": "none"},
    } | more


def config(**more: Any) -> dict[str, Any]:
    return {"inbounds": [vless()], "outbounds": [{"tag": "DIRECT", "protocol": "freedom"}]} | more
