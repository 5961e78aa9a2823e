"""One file per scenario; each registers itself when bench.registry imports it. A new file is all that a new one needs."""
