"""Ask ``lasem serve`` for a long time, while tasks come and go and the server is killed; check every answer.

Each answer must be that of ``GrowingModel.predict``. A task may be unknown only before it was learned or after one
began to forget it, and known only before that has ended. Times are of requests that ask one task about one image,
relative to ``predict_many`` of one image in memory, decoding included, in a process that does nothing else.

    OMP_NUM_THREADS=1 python -m benchmarks.soak --requests 10000 --clients 16 --tasks 20
"""

import argparse
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import Any, final

import httpx
import torch
from PIL import Image

from lasem import Fixed, Freeze, GrowingModel, HardSharing, TrainingConfig
from lasem.nets import ImageShape, Net

NUM_IMAGES, SIDE = 8, 16
CLOSE = 1e-5
"""How far an image's probabilities may be from those that it has alone, when it is computed with others."""


@dataclass
class Life:
    """A task, and when it began and ended."""

    wanted: list[dict[str, float]]
    """For each image the probabilities of all classes."""
    learned: float = field(default_factory=time.perf_counter)
    going: float = float("inf")
    gone: float = float("inf")


@final
class Soak:
    """A model, a server and what came of asking it."""

    def __init__(self, folder: Path, model: Path | None, num_tasks: int, seed: int) -> None:
        self.folder, self.place, self.random = folder, folder / "model", random.Random(seed)
        self.images = [picture(k) for k in range(NUM_IMAGES)]
        self.lives: dict[str, Life] = {}
        self.counts, self.wrong, self.seconds = Counter[str](), list[str](), list[float]()
        self.kills: list[float] = []
        self.address, self.up, self.over = "", threading.Event(), threading.Event()
        for k in range(8):
            kind = folder / "train" / str(k % 2)
            kind.mkdir(parents=True, exist_ok=True)
            (kind / f"{k}.png").write_bytes(picture(100 + k))
        if model is not None:
            shutil.copytree(model, self.place)
        self.model = GrowingModel(self.place) if model is not None else tiny(self.place)
        for k in range(num_tasks - len(self.model.tasks if model is not None else ())):
            self.model.learn(f"task-{k}", folder / "train")
        for name in self.model.tasks:
            self.lives[name] = self.life(name)

    def life(self, name: str) -> Life:
        """A task that has been learned, with the answers that it must give."""
        decode = self.model.decoder()
        asked = [(decode(data, "it"), name) for data in self.images]
        answers = list(self.model.predict_many(asked, top=len(self.model.tasks[name])))
        return Life([dict(zip(a.classes, a.probabilities, strict=True)) for a in answers])

    def bare(self, num: int = 50) -> float:
        """Seconds of one answer without a server."""
        decode, (name, *_) = self.model.decoder(), self.lives
        times = []
        for k in range(num):
            started = time.perf_counter()
            list(self.model.predict_many([(decode(self.images[k % NUM_IMAGES], "it"), name)]))
            times.append(time.perf_counter() - started)
        return median(times)

    def start(self, port: int = 0) -> subprocess.Popen[str]:
        """Start the server, and wait until it says its address."""
        command = [sys.executable, "-m", "lasem", "serve", str(self.place), "--port", str(port), "--threads", "1"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert server.stdout is not None
        self.address = server.stdout.readline().partition(" ")[0]
        self.up.set()
        return server

    def serve(self, num_requests: int, num_kills: int) -> None:
        """Run servers, one after another, until all is asked."""
        server = self.start()
        for kill in range(num_kills):
            while self.counts["asked"] < num_requests * (0.4 + 0.5 * kill / num_kills) and not self.over.is_set():
                time.sleep(0.01)
            self.up.clear()
            self.kills.append(time.perf_counter())
            server.kill()
            self.ended(server, -signal.SIGKILL)
            server = self.start(int(self.address.rpartition(":")[2]))
        first = memory(server.pid)
        self.over.wait()
        print(f"memory of the last server: {memory(server.pid) / first:.2f} of what it had at its start")
        server.send_signal(signal.SIGINT)
        self.ended(server, 0)

    def ended(self, server: "subprocess.Popen[str]", code: int) -> None:
        """See that a server ended as it should, and said nothing."""
        _, said = server.communicate(timeout=60)
        if server.returncode != code or said:
            self.wrong.append(f"the server ended with {server.returncode}, not {code}: {said}")

    def change(self) -> None:
        """Learn tasks and forget them."""
        number = 0
        while not self.over.wait(0.2):
            name, number = f"extra-{number}", number + 1
            self.model.learn(name, self.folder / "train", wait=60)
            self.lives[name] = self.life(name)
            if self.over.wait(0.5):
                break
            self.lives[name].going = time.perf_counter()
            self.model.forget(name, wait=60)
            self.lives[name].gone = time.perf_counter()
            self.counts["tasks learned and forgotten"] += 1

    def ask(self, num: int, chance: random.Random) -> None:
        """Ask a number of questions, one after another."""
        with httpx.Client(timeout=60) as client:
            for _ in range(num):
                while not self.ask_one(client, chance):
                    self.counts["cut off by a kill"] += 1
                self.counts["asked"] += 1

    def ask_one(self, client: httpx.Client, chance: random.Random) -> bool:
        """Ask one question, and look at the answer; False if there was none, which only a kill excuses."""
        kind = chance.choices(("one", "files", "all", "unknown", "no image"), (80, 8, 4, 4, 4))[0]
        now, pictures = time.perf_counter(), chance.sample(range(NUM_IMAGES), 3)
        names = [name for name, life in list(self.lives.items()) if life.gone > now - 0.5]
        latest = names[-3:] if chance.random() < 0.3 else names
        name, top = chance.choice(latest), chance.randint(1, 2)
        body: dict[str, Any] = {"content": self.images[pictures[0]]}
        if kind == "files":
            body = {"files": [("file", (f"{k}.png", self.images[k])) for k in pictures]}
        elif kind == "no image":
            name, body = names[0], {"content": b"no image"}
        where = {"all": "", "unknown": "/never"}.get(kind, f"/{name}")
        self.up.wait()
        started = time.perf_counter()
        try:
            found = client.post(f"{self.address}/predict{where}?top={top}", **body)
        except httpx.TransportError as error:
            if not any(started - 1 < kill for kill in self.kills):  # a second: of what was about to be asked
                self.wrong.append(f"{kind}, no kill since: {type(error).__name__} {error}")
            time.sleep(0.05)
            return False
        ended = time.perf_counter()
        self.counts[kind] += 1
        answers = found.json() if found.status_code == 200 else []
        if kind in ("unknown", "no image"):
            right = found.status_code == {"unknown": 404, "no image": 422}[kind]
        elif found.status_code == 404:
            right = kind != "all" and self.lives[name].going < ended
            self.counts["forgotten meanwhile"] += 1
        elif kind == "all":
            right = self.all_right(answers, pictures[0], top, started, ended)
        else:
            answers, asked = ([answers], pictures[:1]) if kind == "one" else (answers, pictures)
            right = len(answers) == len(asked) and all(
                self.right(answer, name, picture, top, started) for answer, picture in zip(answers, asked, strict=True)
            )
            if kind == "one":
                self.seconds.append(ended - started)
        if not right:
            self.wrong.append(f"{kind} {name}: {found.status_code} {found.text[:300]}")
        return True

    def right(self, answer: Any, name: str, picture: int, top: int, started: float) -> bool:
        """Whether an answer is the one of a task that was there."""
        life, best = self.lives[name], answer["predictions"]
        wanted = sorted(life.wanted[picture].values(), reverse=True)[:top]
        return (
            answer["task"] == name
            and started < life.gone
            and len(best) == len(wanted)
            and all(abs(pair["probability"] - p) < CLOSE for pair, p in zip(best, wanted, strict=True))
            and all(abs(pair["probability"] - life.wanted[picture][pair["class"]]) < CLOSE for pair in best)
        )

    def all_right(self, answers: Any, picture: int, top: int, started: float, ended: float) -> bool:
        """Whether all tasks answered that were there all the time, and no other one than was there meanwhile."""
        lives, there = dict(self.lives), [answer["task"] for answer in answers]
        steady = {name for name, life in lives.items() if life.learned < started and life.going > ended}
        known = [answer for answer in answers if answer["task"] in lives]  # the latest may not be noted yet
        return (
            len(set(there)) == len(there)
            and steady <= set(there)
            and len(known) >= len(there) - 1
            and all(self.right(answer, answer["task"], picture, top, started) for answer in known)
        )


def main() -> None:
    """Ask, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", type=Path, nargs="?", help="it is copied (default: a tiny one is made)")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--tasks", type=int, default=20)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), chosen.model, chosen.tasks, chosen.seed)
        bare = soak.bare()
        print(f"{len(soak.lives)} tasks; predict of one image in memory: {1000 * bare:.2f} ms", flush=True)
        run(soak, chosen.requests, chosen.clients, chosen.kills, chosen.seed, bare)
    print(f"wrong: {len(soak.wrong)}", *soak.wrong[:10], sep="\n  ")
    sys.exit(bool(soak.wrong))


def run(soak: Soak, num_requests: int, num_clients: int, num_kills: int, seed: int, bare: float) -> None:
    """Let clients ask, first while nothing changes, and print times."""
    serving = threading.Thread(target=soak.serve, args=(num_requests, num_kills))
    changing = threading.Thread(target=soak.change)
    serving.start()
    soak.up.wait()
    for what, num, clients in (
        ("one client", num_requests // 10, 1),
        (f"{num_clients} clients", num_requests // 5, num_clients),
        (f"{num_clients} clients, tasks come and go, kills", num_requests - num_requests * 3 // 10, num_clients),
    ):
        soak.seconds.clear()
        if "kills" in what:
            changing.start()
        started, before = time.perf_counter(), soak.counts["asked"]
        shares = [num // clients + (k < num % clients) for k in range(clients)]
        chances = [random.Random(f"{seed}-{what}-{k}") for k in range(clients)]
        asking = [threading.Thread(target=soak.ask, args=pair) for pair in zip(shares, chances, strict=True)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        rate = (soak.counts["asked"] - before) / (time.perf_counter() - started)
        cuts = quantiles(soak.seconds, n=100)
        times = f"p50 {cuts[49] / bare:.1f}, p99 {cuts[98] / bare:.1f} times predict; {rate:.0f} requests a second"
        print(f"{what}: {times}", flush=True)
    soak.over.set()
    serving.join()
    changing.join()
    if soak.counts["asked"] != num_requests:
        soak.wrong.append(f"only {soak.counts['asked']} requests were answered")
    print(", ".join(f"{what} {count:,}" for what, count in sorted(soak.counts.items())))


def tiny(place: Path) -> GrowingModel:
    """A model whose tasks are learned in a moment, share their first layers, and may be forgotten."""

    def net(shape: ImageShape) -> Net:
        return Net(image_shape=shape, channels=(4, 8), kernels=(3, 3), pools=(2, 2), hidden=(8,))

    return GrowingModel(
        place,
        net=net,
        sharing=HardSharing(),
        search=Fixed("TS"),
        protect=Freeze(),
        training=TrainingConfig(epochs=1, batch_size=4),
        image_size=SIDE,
        channels=3,
    )


def picture(seed: int) -> bytes:
    """A PNG of random colours."""
    colours = torch.randint(0, 256, (SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))
    Image.fromarray(colours.numpy()).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


def memory(process: int) -> float:
    """The memory that a process has, in MiB."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    main()
