"""The node shown at work without a panel: a panel, users and a target of its own, all real, all on loopback.

``show`` is what ``pgnode demo`` runs. The parts serve the end-to-end tests too: ``panel`` plays the panel over REST,
``node`` runs a private node, ``people`` makes configs and users, ``traffic`` moves users' bytes through a client core
and ``target`` is what they talk to.
"""
