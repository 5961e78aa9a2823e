"""The node over REST: the gate in front (key, body, limits), the Falcon application behind it, and the log stream."""
