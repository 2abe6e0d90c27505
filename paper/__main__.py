"""``python -m paper``: ``lasem reproduce`` from a checkout."""

import sys

from lasem.cli import main

if __name__ == "__main__":
    sys.exit(main(["reproduce", *sys.argv[1:]]))
