"""``python -m benchmarks``: ``lasem bench`` from a checkout."""

import sys

from lasem.cli import main

if __name__ == "__main__":
    sys.exit(main(["bench", *sys.argv[1:]]))
