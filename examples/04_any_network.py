"""Any network: a torch module that was trained elsewhere is cut into blocks; each task decides which of them it keeps.

What a task transfers it changes by matrices of rank 4 (low-rank sharing); the module's own weights stay as they are.
"""

import tempfile

import torch
from torch import Tensor, nn

import lasem
from lasem.nets import cut
from lasem.sharing import LowRank


class Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.bn2 = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        inside = torch.relu(self.bn1(self.conv1(x)))
        return torch.relu(x + self.bn2(self.conv2(inside)))


def module(num_classes: int) -> nn.Module:
    stem = [nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    end = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, num_classes)]
    return nn.Sequential(*stem, Residual(16), nn.MaxPool2d(2), Residual(16), *end)


def train(network: nn.Module, task: lasem.Task, epochs: int) -> None:
    optimiser = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for images, labels in task.train.batches(20, device=torch.device("cpu")):
            optimiser.zero_grad()
            nn.functional.cross_entropy(network(images), labels).backward()
            optimiser.step()


TRAINING = lasem.TrainingConfig(epochs=12, learning_rate=3e-3)

torch.manual_seed(0)
first, *stream = lasem.DigitsReader(num_tasks=3).open(seed=0)
pretrained = module(first.num_classes)
train(pretrained, first, epochs=10)

net = cut(pretrained, image_shape=first.image_shape)  # or blocks=[("0", "1"), "3", "5"]
print("blocks:", [block.name for block in net.blocks], "and a head on", net.head.in_features, "features")
learner = lasem.Learner(net, sharing=LowRank(rank=4, train_shared=False), training=TRAINING)
for task in stream:
    record = learner.learn(task)
    print(f"{task.name}: {record.configuration}, test accuracy {record.peak_accuracy:.3f}, ", end="")
    print(f"{record.parameters_added} numbers of its own")

with tempfile.TemporaryDirectory() as folder:  # code is never saved: whoever loads the model brings the module
    learner.save(f"{folder}/model")
    learner = lasem.Learner.load(f"{folder}/model", net=cut(pretrained, image_shape=first.image_shape))
print("loaded:", learner.predict(task.name, task.test.images.take(torch.arange(5))))
