"""``python -m pgnode`` is ``pgnode``."""

from pgnode.cli import main

if __name__ == "__main__":
    main()
