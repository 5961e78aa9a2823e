"""The embedded core (PyPI ``Xray-core``): a library in a Python process of its own.

Its long-lived process is made by :mod:`pgnode.xray.process.runner`; what happens inside is
:mod:`pgnode.xray.process.embedded_main`.
"""

from __future__ import annotations

import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Final

from pgnode.errors import StartFailedError
from pgnode.xray.process import embedded_main
from pgnode.xray.process.base import Core, core_environment
from pgnode.xray.process.rehearsal import log_without_files
from pgnode.xray.process.runner import Child, Runner
from pgnode.xray.process.trial import EXIT_START_FAILED, STARTED, last_lines, run_to_end
from pgnode.xray.process.unbindable import unbindable

#: A config that listens nowhere; the core prints its version when it has started.
VERSION_CONFIG: Final = '{"log":{"loglevel":"warning"},"outbounds":[{"protocol":"freedom"}]}'


class EmbeddedCore(Core):
    """The core as a library in a Python process of its own.

    Args:
        assets_dir: Folder of geo files.
        version_config: A config with which it is asked for its version.
    """

    kind = "embedded"
    _accepted = frozenset({EXIT_START_FAILED})

    def __init__(self, assets_dir: Path | None = None, *, version_config: str = VERSION_CONFIG) -> None:
        super().__init__(assets_dir)
        self._version_config = version_config

    def __str__(self) -> str:
        return f"embedded (Xray-core {importlib.metadata.version('Xray-core')})"

    def with_assets(self, assets_dir: Path) -> EmbeddedCore:
        """Make the same core with another folder of geo files."""
        return EmbeddedCore(assets_dir)

    async def check_exit_code(self, config_json: str, deadline_seconds: float) -> tuple[int, str]:
        """Run the config with addresses that cannot be bound; takes about 70 ms.

        Args:
            config_json: The whole config.
            deadline_seconds: Seconds until the core is killed.

        Returns:
            The exit code and the output: 255 is accepted, 23 refused.

        Raises:
            StartFailedError: The config is no JSON object, or the core cannot be run.
        """
        try:
            document = json.loads(config_json)
        except ValueError as error:
            raise StartFailedError(f"the config is no JSON: {error}") from None
        if not isinstance(document, dict):
            raise StartFailedError("the config is no JSON object")
        harmless = unbindable(document)
        # The core must not open the files that a config's log part may name.
        harmless["log"] = log_without_files(document.get("log"))
        code, output = await run_to_end(
            self._command(), json.dumps(harmless), deadline_seconds, core_environment(self.assets_dir), stop=STARTED
        )
        # On a machine where any address may be bound (ip_nonlocal_bind) the core comes up, which answers as well.
        return (EXIT_START_FAILED, output) if STARTED.search(output) else (code, output)

    def short_lived(self) -> tuple[list[str], dict[str, str]]:
        """Name command and environment of a core that reads its config from standard input and prints to its output."""
        return self._command(), core_environment(self.assets_dir)

    async def _ask_version(self, deadline_seconds: float) -> str:
        environment = core_environment(None)
        _, output = await run_to_end(self._command(), self._version_config, deadline_seconds, environment, stop=STARTED)
        found = STARTED.search(output)
        if found is None:
            raise StartFailedError(f"the embedded core does not start: {last_lines(output) or 'no output'}")
        return found[1]

    @staticmethod
    def _command() -> list[str]:
        return [sys.executable, "-I", str(Path(embedded_main.__file__).resolve())]

    def warm_up(self, assets_dir: Path | None = None) -> Runner:
        """Start a process that waits for its config, for :meth:`spawn`. Raises StartFailedError when the system has no room."""
        try:
            return Runner(assets_dir or self.assets_dir)
        except OSError as error:
            raise StartFailedError(f"no process for the core can be started: {error.strerror or error}") from error

    async def _launch(self, _config_json: str, _fifo: Path, assets_dir: Path | None, runner: Runner | None) -> Child:
        return runner or self.warm_up(assets_dir)

    async def _begin(self, child: Child, config_json: str, fifo: Path) -> None:
        assert isinstance(child, Runner), "what _launch returned"
        try:
            await child.start_core(config_json, fifo)
        except OSError as error:
            raise StartFailedError(f"the core's process ended before it had its config: {error.strerror}") from None
