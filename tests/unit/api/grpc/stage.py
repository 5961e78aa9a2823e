"""The gRPC handlers on a server of the library, and what its callers are refused with."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from grpc import StatusCode, aio

from pgnode.api.auth import ApiKeys
from pgnode.api.call_audit import CallAudit
from pgnode.api.grpc import health, reflection
from pgnode.api.grpc.handlers import SERVICE, GrpcHandlers
from pgnode.metrics.meter import FaceMeter
from tests.support.grpc_node import GrpcNode, code_of
from tests.unit.api.fakes import KEY, Node

#: Seconds that a call may say nothing, here.
SILENT_SECONDS = 0.3
LIMIT = 100_000
CALLS, VIEWERS = 4, 3
WRONG = "00000000-0000-4000-8000-000000000000"


class Server:
    """The handlers on a unix socket."""

    def __init__(self, *, max_calls: int = CALLS, reflected: bool = False, open_paths: Sequence[str] = ()) -> None:
        self.node = Node()
        self.keys = ApiKeys(KEY)
        self.meter = FaceMeter(time.monotonic)
        self.serving = True
        self.folder = Path(tempfile.mkdtemp(prefix="pgn"))
        self.address = f"unix:{self.folder}/s"
        services = (SERVICE, health.SERVICE, *reflection.SERVICES)
        self.handlers = GrpcHandlers(
            self.node.service(),
            api_key=self.keys,
            body_timeout_seconds=SILENT_SECONDS,
            max_calls=max_calls,
            max_streams=VIEWERS,
            extra_handlers={
                **health.handlers(lambda: self.serving),
                **(reflection.handlers(services) if reflected else {}),
            },
            open_paths=open_paths,
            meter=self.meter,
            audit=CallAudit(ApiKeys.of(self.keys)),
        )
        self._server = aio.server(options=[("grpc.max_receive_message_length", LIMIT)])
        self._server.add_generic_rpc_handlers((self.handlers,))
        self._server.add_insecure_port(self.address)

    async def __aenter__(self) -> Server:
        await self._server.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.stop(None)
        shutil.rmtree(self.folder, ignore_errors=True)

    def caller(self) -> GrpcNode:
        return GrpcNode(self.address, KEY)


@contextlib.contextmanager
def refused(code: StatusCode, text: str, error_code: str | None = None) -> Any:
    with pytest.raises(aio.AioRpcError) as caught:
        yield
    assert caught.value.code() is code, caught.value.details()
    assert text in (caught.value.details() or "")
    if error_code is not None:
        assert code_of(caught.value) == error_code
