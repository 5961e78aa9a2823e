"""The node shown at work without a panel; ``show`` is what ``pgnode demo`` runs. Its parts are ``pgnode.testing``'s."""
