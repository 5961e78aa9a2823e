"""Gunicorn's own log, of its master and its workers; its lines go where all others of the process go."""

from __future__ import annotations

import logging
import sys

from pgnode.os_support.log_output import PROCESS, StandardHandler
from pgnode.worker.gunicorn_compat import GunicornLogger


class GunicornLog(GunicornLogger):  # type: ignore[misc]
    """What Gunicorn makes one of, as ``logger_class`` says."""

    def setup(self, cfg: object) -> None:
        """Set it up as Gunicorn does, at the start and at each reload; what goes to stderr takes the one form.

        Args:
            cfg: Gunicorn's settings.
        """
        handlers = self.error_log.handlers
        handlers[:] = [handler for handler in handlers if not isinstance(handler, StandardHandler)]
        super().setup(cfg)
        # A file that an operator names stays as Gunicorn writes it.
        kept = [handler for handler in handlers if not _goes_to_stderr(handler)]
        if len(kept) < len(handlers):
            handlers[:] = [*kept, StandardHandler(PROCESS, as_details=True)]


def _goes_to_stderr(handler: logging.Handler) -> bool:
    return type(handler) is logging.StreamHandler and handler.stream is sys.stderr
