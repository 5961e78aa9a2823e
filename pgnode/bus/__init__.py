"""What workers and supervisor say to each other over Redis; keys.py is the catalogue of all keys."""
