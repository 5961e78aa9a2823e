"""Unit tests: each module of pgnode/ has one of the same name in the mirrored place. No whole node runs here."""
