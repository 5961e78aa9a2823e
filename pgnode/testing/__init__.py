"""What the tests, the measurements and the demo share.

``panel`` plays the panel over REST, ``node`` runs a private node, ``users``, ``configs`` and ``ports`` make what a panel
sends, ``traffic`` moves users' bytes through a client core, and ``target`` is what these users talk to.
"""
