"""Your own data: a task is three pairs of images and labels. Learn two, save the model, load it, predict by name."""

import tempfile

import torch

import lasem


def stripes(num_images: int, directions: tuple[str, ...], seed: int) -> tuple[torch.Tensor, list[str]]:
    """Grey 12 x 12 images with noisy stripes, named by their direction."""
    random = torch.Generator().manual_seed(seed)
    rows, columns = torch.meshgrid(torch.arange(12), torch.arange(12), indexing="ij")
    phases = {"horizontal": rows, "vertical": columns, "falling": rows - columns, "rising": rows + columns}
    labels = [directions[i % len(directions)] for i in range(num_images)]
    images = torch.stack([(phases[label] % 4 < 2) * 160 + 40 for label in labels]).unsqueeze(1)
    return (images + torch.randint(-40, 40, images.shape, generator=random)).to(torch.uint8), labels


def task(name: str, directions: tuple[str, ...]) -> lasem.Task:
    return lasem.Task.from_tensors(
        name, train=stripes(40, directions, 0), valid=stripes(10, directions, 1), test=stripes(40, directions, 2)
    )


learner = lasem.Learner(lasem.for_images((1, 12, 12)), training=lasem.TrainingConfig(epochs=10))
for name, directions in {"upright": ("horizontal", "vertical"), "slanted": ("falling", "rising")}.items():
    print(learner.learn(task(name, directions)).configuration)

with tempfile.TemporaryDirectory() as folder:
    learner.save(f"{folder}/stripes")
    learner = lasem.Learner.load(f"{folder}/stripes")
images, labels = stripes(4, ("falling", "rising"), seed=3)
print("expected", labels, "predicted", learner.predict("slanted", images))
print(learner.predict("slanted", images, probabilities=True).round(decimals=3))
