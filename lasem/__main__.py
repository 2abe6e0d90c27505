"""``python -m lasem``."""

import sys

from lasem.cli import main

if __name__ == "__main__":
    sys.exit(main())
