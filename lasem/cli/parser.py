"""Parsing that answers a mistake with what was expected, instead of the usage."""

from __future__ import annotations

import argparse
import re
import shutil
from collections.abc import Iterable, Sequence
from typing import Any, NoReturn

from lasem.errors import ConfigError, nearest


class Parser(argparse.ArgumentParser):
    """Raises ConfigError where argparse would print its usage and exit; abbreviates nothing."""

    def __init__(self, **settings: Any) -> None:
        """Take argparse's own settings."""
        super().__init__(allow_abbrev=False, formatter_class=_Formatter, **settings)

    def error(self, message: str) -> NoReturn:
        """Raise instead of exit."""
        message = re.sub(r"argument (\S+): expected one argument", r"\1 needs a value", message)
        raise ConfigError(f"{message[:1].upper()}{message[1:]}. See {self.prog} --help.")

    def parse_known_options(
        self, argv: Sequence[str], others: Iterable[str] = (), *, mixed: bool = False
    ) -> argparse.Namespace:
        """Parse, and name the nearest option for one that is not known.

        Args:
            argv: what a person typed.
            others: options that exist, but not with the choices made.
            mixed: whether other words may stand between and behind the options.

        Raises:
            ConfigError: if anything is left over.
        """
        found, left = (self.parse_known_intermixed_args if mixed else self.parse_known_args)(argv)
        for word in left:
            option = word.split("=")[0]
            if option in others:
                self.error(f"{option} does not belong to what was chosen")
            if option.startswith("--"):
                known = [o for action in self._actions for o in action.option_strings if o.startswith("--")]
                raise ConfigError(f"There is no option {option}.{nearest(option, known)} See {self.prog} --help.")
        if left:
            raise ConfigError(
                f"Expected an option such as --out; got '{left[0]}'. A list is written as 0,1,2, without spaces. "
                f"See {self.prog} --help."
            )
        return found


class _Formatter(argparse.HelpFormatter):
    """As wide as the terminal, up to 100 columns; an option's name is rarely too long to stand beside its text."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=26, width=min(shutil.get_terminal_size().columns, 100) - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Leave a table of examples or commands as it was written."""
        return text if "\n" in text else super()._fill_text(text, width, indent)
