"""Configs that shall run, as small as they can be, for tests of what decides about them."""

from __future__ import annotations

import json
from typing import Any

from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import parse_config


def make_config(*tags: str, **sections: Any) -> str:
    """Return an Xray config with a VLESS inbound on a port of its own for each tag."""
    inbounds = [
        {"tag": tag, "protocol": "vless", "listen": "127.0.0.1", "port": 20000 + number, "settings": {"clients": []}}
        for number, tag in enumerate(tags)
    ]
    return json.dumps({"inbounds": inbounds, "outbounds": [{"tag": "direct", "protocol": "freedom"}], **sections})


def make_run_spec(*tags: str, keep_alive_seconds: int = 0, **sections: Any) -> RunSpec:
    """Return the same as a start's config that was read."""
    config = make_config(*(tags or ("a",)), **sections)
    message = pb.Backend(config=config, keep_alive=keep_alive_seconds).SerializeToString()
    base = parse_config(config, exclude_inbounds=(), api_socket="/core.sock", assets_dir=None)
    return RunSpec(message, base, keep_alive_seconds)
