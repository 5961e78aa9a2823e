"""Parts of the node against real parts: cores, Gunicorn workers, Valkey."""
