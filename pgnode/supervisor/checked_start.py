"""The start of a supervisor whose settings are checked.

They are checked by another program of the same process, ``pgnode run``: what reads arguments and settings takes some MB and is
of no use as long as the node runs. So that ends with an exec of itself, as it was started, and an open file without a name tells
the supervisor what was found (:func:`pgnode.settings.handover.hand_on`).
"""

from __future__ import annotations

import os

from pgnode.errors import OperatorError
from pgnode.os_support import streams
from pgnode.settings.handover import Checked
from pgnode.supervisor.host.logging import begin_logging, told_in_log
from pgnode.supervisor.main import run


def main(checked: Checked) -> int:
    """Run the node with what was checked.

    Args:
        checked: Its settings, and what the operator has to be told before.

    Returns:
        The exit code: that of the node, or of the error that was printed.
    """
    try:
        return run_checked(checked)
    except OperatorError as error:
        streams.say(f"pgnode: {error}")
        return error.exit_code


def run_checked(checked: Checked) -> int:
    """Run the node until it is told to end.

    Args:
        checked: Its settings, and what the operator has to be told before.

    Returns:
        The exit code.

    Raises:
        OperatorError: The node cannot run, and the log is not where it is told.
    """
    begin_logging(checked.settings, os.environ)
    for sentence in checked.sentences:
        if not told_in_log("warning", sentence):
            streams.say(f"pgnode: {sentence}")
    try:
        return run(checked.settings, checked.env_file)
    except OperatorError as error:
        if not told_in_log("error", str(error)):
            raise
        streams.drain()
        return error.exit_code
