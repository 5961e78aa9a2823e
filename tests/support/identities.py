"""Keys and certificates of nodes in folders, for tests that are about something else."""

from __future__ import annotations

from pgnode.settings import Settings
from pgnode.supervisor.host.identity import Identity, ensure_identity, prepare_state_dir
from pgnode.supervisor.host.own_certificate import make_certificate


def make_identity(settings: Settings) -> Identity:
    """Make the state folder, a certificate and a key, as a first start does, but without a process for the certificate."""
    prepare_state_dir(settings)
    make_certificate(settings)
    return ensure_identity(settings)
