"""The command ``lasem``: parse, call, print."""

from lasem.cli.main import main

__all__ = ["main"]
