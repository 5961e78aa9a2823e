"""``python -m pgnode.worker.grpc_worker``, started by hand beside a stage."""

from __future__ import annotations

import asyncio
import sys

from grpc import aio
from grpc_health.v1 import health_pb2

from tests.integration.worker.stage import Stage
from tests.support.grpc_node import GrpcNode
from tests.support.polling import eventually

SERVING = int(health_pb2.HealthCheckResponse.SERVING)


class GrpcWorker:
    """One worker; :meth:`start` waits until it serves."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._output = stage.folder / "grpc.log"
        self.process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        with self._output.open("wb") as output:
            self.process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "pgnode.worker.grpc_worker"),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._stage.environment,
                cwd=self._stage.folder,
                preexec_fn=self._stage.limit_files,
            )

        async def up() -> bool:
            async with self.caller() as caller:
                return (await caller.health()) == SERVING

        try:
            await eventually(up, "the worker serves", errors=(aio.AioRpcError,))
        except AssertionError as error:
            ended = self.process.returncode
            raise AssertionError(f"{error}; it ended with {ended}, and printed:\n{self.output}") from None

    async def stop(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()
            await self.process.wait()

    @property
    def output(self) -> str:
        """What it printed."""
        return self._output.read_text(errors="replace")

    def caller(self) -> GrpcNode:
        certificate = self._stage.settings.cert_file.read_bytes()
        return GrpcNode(f"127.0.0.1:{self._stage.grpc_port}", self._stage.api_key, certificate)
