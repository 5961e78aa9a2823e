"""A bare ``grpc.aio`` server that returns the same bytes to every call of a path: ``python -m bench.bare_grpc PORT PATH=HEX…``.

It has the options, certificate and event loop of the node's own gRPC workers, from the same environment, and nothing else.
"""

from __future__ import annotations

import sys
from typing import Any

import grpc
import uvloop
from grpc import aio

from pgnode.os_support.pdeath import die_with_parent
from pgnode.settings import Settings, load
from pgnode.worker.grpc_worker import credentials, server_options


class Answers(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """The handlers by path."""

    def __init__(self, answers: dict[str, bytes]) -> None:
        self._handlers = {path: grpc.unary_unary_rpc_method_handler(_answering(body)) for path, body in answers.items()}

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any] | None:
        return self._handlers.get(handler_call_details.method)


def _answering(body: bytes) -> Any:
    async def answer(_request: bytes, _context: object) -> bytes:
        return body

    return answer


async def serve(settings: Settings, port: int, answers: dict[str, bytes]) -> None:
    server = aio.server(options=server_options(settings))
    server.add_generic_rpc_handlers((Answers(answers),))
    server.add_secure_port(f"127.0.0.1:{port}", credentials(settings))
    await server.start()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    await server.wait_for_termination()


def main() -> None:
    die_with_parent()
    answers = {path: bytes.fromhex(body) for path, _, body in (item.partition("=") for item in sys.argv[2:])}
    uvloop.run(serve(load(), int(sys.argv[1]), answers))


if __name__ == "__main__":
    main()
