"""The states of the node, as the supervisor keeps them and workers answer by them. Pure."""

from __future__ import annotations

import enum


class State(enum.StrEnum):
    """Where the node is in its life."""

    RESTORING = "restoring"  # a new supervisor finds out whether a core is there, or takes it over
    IDLE = "idle"  # no backend was started, or it was stopped
    STARTING = "starting"  # a core is being started for a call, or for a config found in the store
    RUNNING = "running"  # the core runs and has its users
    RECOVERING = "recovering"  # the core died and the node is bringing it back
    FAILED = "failed"  # the core does not stay up, and is tried again after growing pauses
    LINGERING = "lingering"  # stopped, but the core lingers: a start may take it over
    STOPPING = "stopping"  # the core is being ended


#: Seconds that a caller waits, at most, for a new supervisor to know whether a core runs; callers give up after ten.
KNOWN_SECONDS = 8.0

#: What callers are told who waited in vain for a new supervisor to know whether a core runs.
NOT_KNOWN_YET = "the node was restarted and still takes over its core, if one runs: try again"

#: States in which a core runs and has its users.
WITH_CORE = frozenset({State.RUNNING, State.LINGERING})
