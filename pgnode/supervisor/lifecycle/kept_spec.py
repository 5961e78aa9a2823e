"""What a core runs, written beside it: a supervisor that comes later takes the core over with just that.

It may not be able to make it anew: another version may rewrite the panel's config differently or refuse it, or the store was
lost. Pure.
"""

from __future__ import annotations

import base64
import json
from typing import Any

from pgnode.supervisor.lifecycle.run_spec import RunSpec
from pgnode.wire import service_pb2 as pb
from pgnode.xray.config.document import kept_config

_VERSION = 1


def encode(spec: RunSpec) -> bytes:
    """Return what :func:`decode` reads."""
    base = spec.base
    kept = {
        "version": _VERSION,
        "message": base64.b64encode(spec.message).decode(),
        "document": base.document,
        "base_hash": base.base_hash,
        "managed": list(spec.inbounds),
        "access_log_path": base.access_log_path,
        "error_log_path": base.error_log_path,
        "observed_outbound_exclusions": sorted(base.observed_outbound_exclusions),
    }
    return json.dumps(kept, separators=(",", ":")).encode()


def decode(content: bytes, base_hash: str, api_socket: str) -> RunSpec | None:
    """Read what was kept.

    Args:
        content: Whatever is in the file.
        base_hash: That of the config which the core runs by its record.
        api_socket: Path of the core's API.

    Returns:
        What the core runs; None where this is something else, or nothing that can be read.
    """
    try:
        kept: dict[str, Any] = json.loads(content)
        if kept.pop("version") != _VERSION or not base_hash or kept["base_hash"] != base_hash:
            return None
        message = base64.b64decode(kept.pop("message"))
        return RunSpec(message, kept_config(**kept, api_socket=api_socket), pb.Backend.FromString(message).keep_alive)
    except Exception:
        # Whatever it is: a file that cannot be read is none.
        return None
