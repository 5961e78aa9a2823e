"""Which core a node runs that nobody gave another one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pgnode.xray.process.base import Core
from pgnode.xray.process.embedded import EmbeddedCore
from pgnode.xray.process.executable import ExecutableCore

if TYPE_CHECKING:
    from pgnode.settings import Settings


def default_core(settings: Settings) -> Core:
    """Return what XRAY_EXECUTABLE_PATH names, or the embedded core."""
    path = settings.xray_executable_path
    return EmbeddedCore(settings.assets_dir) if path is None else ExecutableCore(path, settings.assets_dir)
