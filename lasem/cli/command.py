"""Commands as functions: the parameters are a command's words and options, the docstring is its help.

A positional parameter is a word, a keyword-only one an option: ``image_column`` is ``--image-column``, and a bool takes
no value. A command with ``**settings`` takes settings of an experiment, too (``lasem.cli.choices``). Values are read as
settings are (``lasem.settings``), so a file and a shell get the same answer to a mistake.
"""

import inspect
import shutil
import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, final, get_args

from lasem.cli.choices import RUN, Choosable, Rows
from lasem.errors import ConfigError, nearest
from lasem.settings import metavar, read_value

if TYPE_CHECKING:
    from docstring_parser import Docstring

_GENERAL: Rows = [
    ("-h, --help", "show this text"),
    ("--debug", "show the traceback of an error"),
]
_COMMON = {
    "model": "the model's folder",
    "task": "the task's name",
    "image_column": "of the images in a table",
    "label_column": "of the classes in a table",
    "text_column": "of the texts in a table, if the model is one of texts",
    "wait": "seconds to wait for another process that changes the model (default: 0)",
    "checkpoint_seconds": "how much training a kill may lose; Ctrl-C and errors lose only the epoch under way",
    "device": "where to compute",
    "watch": "write losses and accuracies for others to show: tensorboard, wandb, mlflow",
    "workers": "runs at a time, each in a process of its own (default: 1; with --ray as many as there is room for)",
    "quiet": "show no progress",
}
"""What parameters mean that several commands have."""

_MEANT = {"gpu": "device", "cuda": "device", "data": "stream", "dataset": "stream", "arch": "net"}
"""What other programs call some options."""
_NAMED = " A {} is named: --net timm:NAME, with --net.weights FILE or --net.pretrained true."
_ELSEWHERE = {"pretrained": _NAMED.format("pretrained network"), "backbone": _NAMED.format("backbone")}


class Typed(tuple[str, ...]):
    """All that a person typed, for a command whose first parameter is of this class."""


@final
class Command:
    """A function that is called with words from a command line."""

    def __init__(self, name: str, function: Callable[..., int]) -> None:
        """Name a function that returns the exit code."""
        self._name, self._function = name, function
        parameters = inspect.signature(function, eval_str=True).parameters.values()
        self._typed = any(p.annotation is Typed for p in parameters)
        self._words = [
            p for p in parameters if p.annotation is not Typed and p.kind in (p.POSITIONAL_OR_KEYWORD, p.VAR_POSITIONAL)
        ]
        self._options = {p.name.replace("_", "-"): p for p in parameters if p.kind is p.KEYWORD_ONLY}
        found = [get_args(p.annotation)[1] for p in parameters if p.kind is p.VAR_KEYWORD]
        self._settings: Choosable | None = found[0] if found else None

    def __call__(self, words: Sequence[str]) -> int:
        """Call the function, or show its help; ConfigError for a missing, unknown or wrong word or option."""
        if "-h" in words or "--help" in words:
            print(self._help(), end="")
            return 0
        left, given = self._split([word for word in words if word != "--help-all"])
        if "--help-all" in words:
            print(self._help(given), end="")
            return 0
        typed = (Typed(("lasem", self._name, *words)),) if self._typed else ()
        return self._function(*typed, *self._read_words(left), **self._read_options(given))

    def _split(self, words: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """The words that are no options; the options' texts by parameter, or by setting."""
        left: list[str] = []
        given: dict[str, Any] = {}
        rest = iter(words)
        for word in rest:
            if word == "--":
                left.extend(rest)
            elif word == "-" or not word.startswith("-"):
                left.append(word)
            else:
                option, has_value, value = word.partition("=")
                parameter = self._options.get(option.removeprefix("--"))
                key = self._setting(option) if parameter is None else parameter.name
                if parameter is not None and parameter.annotation is bool and not has_value:
                    value = "true"
                elif not has_value:
                    value = next(rest, "--")
                    if value.startswith("--"):
                        self._fail(f"{option} needs a value")
                if parameter is not None and given.get(key, value) != value:
                    self._fail(f"{option} is given twice, as {given[key]} and {value}; leave one out")
                given[key] = value
        return left, given

    def _setting(self, option: str) -> str:
        setting = self._settings and self._settings.setting(option)
        if not setting:
            known = [f"--{name}" for name in self._options] + (self._settings.options if self._settings else [])
            meant = f"--{_MEANT.get(option.strip('-'), '')}"
            if meant in known:
                hint = f" Did you mean '{meant}'?"
            elif self._settings is None and RUN.setting(option):
                hint = " It is an option of lasem run, compare and learn."
            else:
                hint = _ELSEWHERE.get(option.strip("-")) or nearest(option, known)
            self._fail(f"There is no option {option}.{hint}", end="")
        return setting

    def _read_words(self, left: list[str]) -> list[Any]:
        values = []
        for word in self._words:
            several = word.kind is word.VAR_POSITIONAL
            taken, left = (left, []) if several else (left[:1], left[1:])
            if not taken and not several:
                self._fail(f"Expected {_metavar(word)}, {self._texts[word.name]}; got none")
            values += [read_value(text, word.annotation, _metavar(word)) for text in taken]
        if left:
            self._fail(f"Expected an option such as --debug; got '{left[0]}'. A list is written as 0,1,2, no spaces")
        return values

    def _read_options(self, given: dict[str, Any]) -> dict[str, Any]:
        for name, option in self._options.items():
            if option.name in given:
                given[option.name] = read_value(given[option.name], option.annotation, f"--{name}")
            elif option.default is option.empty:
                self._fail(f"Expected --{name}; got none")
        return given

    def _fail(self, message: str, end: str = ".") -> NoReturn:
        raise ConfigError(f"{message}{end} See lasem {self._name} --help.")

    @property
    def _documentation(self) -> "Docstring":
        import docstring_parser  # only help needs it

        return docstring_parser.parse(self._function.__doc__ or "")

    @property
    def _texts(self) -> dict[str, str]:
        own = {p.arg_name: " ".join((p.description or "").split()).rstrip(".") for p in self._documentation.params}
        return _COMMON | own

    def _help(self, given: dict[str, Any] | None = None) -> str:
        """The help page, with all settings of what is chosen if ``given``."""
        document, texts = self._documentation, self._texts
        required = [f"--{name} {_metavar(p)}" for name, p in self._options.items() if p.default is p.empty]
        words = [_metavar(word) for word in self._words]
        width = min(max(shutil.get_terminal_size().columns, 40), 100) - 2
        usage = " ".join(["usage: lasem", self._name, *words, *required, "[options]"])
        about = " ".join(f"{document.short_description} {document.long_description or ''}".split())
        groups: list[tuple[str, Rows]] = []
        if words:
            groups.append(("words", [(_metavar(word), texts[word.name]) for word in self._words]))
        rare = self._settings.rare if self._settings is not None and given is None else ()
        shown = {name: p for name, p in self._options.items() if name not in rare}
        options = [(f"--{name} {_metavar(p)}".rstrip(), texts[p.name] + _default(p)) for name, p in shown.items()]
        if self._settings is not None:
            groups += self._settings.groups(given) if given is not None else [("settings", self._settings.rows)]
            options.append(("--help-all", "show every option, with the settings of what is chosen"))
        groups.append(("options", options + _GENERAL))
        pages = [textwrap.fill(usage, width, subsequent_indent="  "), textwrap.fill(about, width)]
        pages += ["\n".join([f"{title}:", *(_row(*row, width) for row in rows)]) for title, rows in groups]
        for example in document.examples:
            pages.append("examples:\n" + textwrap.indent(example.description or "", "  "))
        return "\n\n".join(pages) + "\n"


def _metavar(parameter: inspect.Parameter) -> str:
    """What stands for a value in a help page."""
    if parameter.kind is not parameter.KEYWORD_ONLY:
        return parameter.name.upper() + ("..." if parameter.kind is parameter.VAR_POSITIONAL else "")
    return "" if parameter.annotation is bool else metavar(parameter.annotation)


def _default(parameter: inspect.Parameter) -> str:
    shown = parameter.default is not parameter.empty and parameter.default not in (None, False, ())
    return f" (default: {parameter.default})" if shown else ""


def _row(name: str, text: str, width: int, indent: int = 22) -> str:
    """A name, and next to it its text, on lines of their own if the name is long."""
    start = f"  {name:{indent - 4}}  "
    lines = textwrap.wrap(text, width - indent, break_on_hyphens=False) or [""]
    if len(start) > indent:
        lines, start = ["", *lines], f"  {name}"
    return (start + ("\n" + " " * indent).join(lines)).rstrip()
