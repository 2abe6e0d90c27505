"""Learn two tasks of drawn pictures, on top of what a pretrained network knows, and ask for new ones.

Where timm or the weights are not installed, this says so, and a small network learns from the start.
"""

import random
import tempfile
from pathlib import Path

from PIL import Image, ImageDraw

import lasem
from lasem.learner import Observer

TASKS = {"shapes": ("circle", "square", "triangle"), "marks": ("bar", "plus", "ring")}
drawn = random.Random(0)


class Lines(Observer):
    """Prints what a person may want to know."""

    def note(self, message: str) -> None:
        print(message)


def picture(kind: str) -> Image.Image:
    """64 x 64 pixels, of any colours."""
    paper, ink = (f"hsl({drawn.randrange(360)}, {saturation})" for saturation in ("50%, 85%", "80%, 35%"))
    x, y, size = drawn.randrange(24, 40), drawn.randrange(24, 40), drawn.randrange(14, 22)
    image = Image.new("RGB", (64, 64), paper)
    pen, around = ImageDraw.Draw(image), (x - size, y - size, x + size, y + size)
    match kind:
        case "circle":
            pen.ellipse(around, ink)
        case "ring":
            pen.ellipse(around, outline=ink, width=6)
        case "bar" | "plus":
            pen.line((x - size, y, x + size, y), ink, 6)
            if kind == "plus":
                pen.line((x, y - size, x, y + size), ink, 6)
        case _:
            pen.regular_polygon((x, y, size), 3 if kind == "triangle" else 4, drawn.randrange(360), ink)
    return image


with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    model = lasem.GrowingModel(
        folder / "model", image_size=64, training=lasem.TrainingConfig(epochs=10, augment="none")
    )
    for task, classes in TASKS.items():
        for kind in classes:
            (folder / task / kind).mkdir(parents=True)
            for number in range(12):
                picture(kind).save(folder / task / kind / f"{number}.png")
        learned = model.learn(task, folder / task, observer=Lines())
        print(f"{task}: {learned.num_parameters:,} parameters of its own, of {model.show().num_parameters:,}")
    for task, classes in TASKS.items():
        for kind in classes:
            picture(kind).save(folder / "new.png")
            (answer,) = model.predict(task, [folder / "new.png"])
            print(f"{task}: a {kind} is a {answer.classes[0]}, probability {answer.probabilities[0]:.2f}")
