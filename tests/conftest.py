"""Settings for all tests."""

from __future__ import annotations

import structlog
from hypothesis import settings

# How long an example takes says something about the machine, not about the code.
settings.register_profile("pgnode", deadline=None)
settings.load_profile("pgnode")

# As the node itself does: tracebacks with every local variable take seconds.
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)
