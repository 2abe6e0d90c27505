"""A model that begins with the pretrained network of the extra ``pretrained``: learned, looked at, exported, killed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from forks import Forked
from learner.images import model_files, write_digits

from lasem.nets.backbone import default_is_installed
from lasem.training import Loop

pytestmark = pytest.mark.skipif(not default_is_installed(), reason="needs the extra pretrained")
LEARN = ("learn", "--task", "digits", "--train", "photos", "--image-size", "48", "--threads", "1")
RUN_WITHOUT_LASEM = """
import json, sys
sys.modules["lasem"] = None
import numpy as np, torch
from PIL import Image
page = json.load(open("digits.pt2.json"))
how = page["input"]["resize"]
def read(path):
    image = Image.open(path).convert("RGB")
    kept = how["crop"] * min(image.size)
    box = [(side + sign * kept) / 2 for sign in (-1, 1) for side in image.size]
    kind = Image.Resampling[how["interpolation"].upper()]
    return np.asarray(image.resize((how["side"], how["side"]), kind, box), dtype=np.float32).transpose(2, 0, 1) / 255
logits = torch.export.load("digits.pt2").module()(torch.from_numpy(np.stack([read(path) for path in sys.argv[1:]])))
print(json.dumps([page["task"], page["classes"], logits.tolist()]))
"""


@pytest.fixture(autouse=True)
def photos(here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("socket.getaddrinfo", never)  # nothing is downloaded
    return write_digits(here / "photos", (0, 1, 2), count=8, size=70)


def never(*given: Any) -> None:
    raise AssertionError(given)


def test_a_task_is_learned_looked_at_and_exported(
    photos: Path, here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any
) -> None:
    said = lasem(LEARN[0], "model", *LEARN[1:], "--search", "fixed", "--epochs", "5")
    assert "Backbone: tf_efficientnet_lite0 of timm, weights from the package efficientnet-lite0" in said.err
    assert "TTTTTTT: search 'fixed' gives every task 'all'" in said.err
    assert said.out.startswith("digits: TTTTTTT (conv_stem, blocks.1 to blocks.6 transferred), valid ")

    with monkeypatch.context() as patch:
        patch.setattr("lasem.nets.net.stored_timm", never)  # a look at the model builds no network
        patch.setattr("lasem.nets.backbone._timm", never)
        assert "Backbone: tf_efficientnet_lite0 of timm" in lasem("show", "model").out

    files = sorted(str(path) for path in photos.rglob("*.png"))
    rows = lasem("predict", "model", "--task", "digits", *files, "--format", "jsonl", "--top", "3").out.splitlines()
    answers = [{p["class"]: p["probability"] for p in json.loads(row)["predictions"]} for row in rows]
    lasem("export", "model", "--task", "digits", "--format", "torch")
    (here / "run.py").write_text(RUN_WITHOUT_LASEM)
    ran = Forked("run.py", *files, folder=here).ended()
    assert ran.returncode == 0, ran.stderr
    task, classes, logits = json.loads(ran.stdout)
    assert (task, classes) == ("digits", ["digit-0", "digit-1", "digit-2"])
    expected = [[answer[name] for name in classes] for answer in answers]
    np.testing.assert_allclose(torch.softmax(torch.tensor(logits), dim=1).numpy(), expected, atol=1e-4)


def test_killed_with_views_and_kept_outputs_it_goes_on_to_the_same_bits(
    here: Path, monkeypatch: pytest.MonkeyPatch, lasem: Any
) -> None:
    words = (*LEARN[1:], "--search", "fixed", "--search.configuration", "TTTTTTS", "--training.augment", "photo")
    words = (*words, "--training.views", "2", "--training.epochs", "6", "--checkpoint-seconds", "0", "--quiet")
    lasem(LEARN[0], "whole", *words)
    real = Loop.run_epoch

    def run_epoch(loop: Loop) -> Any:
        if loop.num_epochs == 2:
            raise KeyboardInterrupt  # with 0 seconds between checkpoints nothing is written then, as after a kill
        return real(loop)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "run_epoch", run_epoch)
        lasem(LEARN[0], "model", *words, code=130)
    lasem(LEARN[0], "model", *words)
    assert model_files(here / "model") == model_files(here / "whole")
