"""Replicas of Ray Serve answer as ``predict`` does, and a killed one comes back; skipped where ray is not installed."""

import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from lasem.errors import ConfigError, StorageError

from .images import small_model

httpx = pytest.importorskip("httpx")
ray = pytest.importorskip("ray", exc_type=ImportError)
serve = pytest.importorskip("ray.serve", exc_type=ImportError)
from lasem.learner.on_ray import application  # noqa: E402

from .test_serving import close, expected  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # ray leaves processes and files open
PORT = 8799


@pytest.fixture
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": PORT})
    yield
    serve.shutdown()
    ray.shutdown()


def replicas() -> set[str]:
    names = [actor["name"] for actor in ray.util.list_named_actors(all_namespaces=True)]
    return {name for name in names if name.startswith("SERVE_REPLICA")}


def test_two_replicas_of_which_one_is_killed_under_load(cluster: None, images: Path, tmp_path: Path) -> None:
    place, files = tmp_path / "model", sorted((images / "mid-test").rglob("*.png"))[:4]
    small_model(place).learn("low", images / "low")
    serve.run(application({"model": str(place), "num_replicas": "2"}))
    wanted: dict[tuple[str, Path], Any] = {}

    def ask(client: Any, name: str, file: Path) -> int:
        found = client.post(f"http://127.0.0.1:{PORT}/predict/{name}", content=file.read_bytes())
        assert found.status_code != 200 or close(found.json(), wanted[name, file])
        return found.status_code

    def ask_all(name: str, num: int) -> Counter[int]:
        with httpx.Client(timeout=60) as client:
            return Counter(ask(client, name, files[k % len(files)]) for k in range(num))

    with httpx.Client(timeout=60) as client:
        assert {ask(client, "mid", file) for file in files} == {404}
    small_model(place).learn("mid", images / "mid")  # neither replica is started again
    for name, file in product(("low", "mid"), files):
        wanted[name, file] = expected(place, name, file)
    before = replicas()
    assert len(before) == 2
    with ThreadPoolExecutor(8) as pool:
        asking = [pool.submit(ask_all, name, 50) for name in ("low", "mid") * 4]
        time.sleep(0.5)
        ray.kill(ray.get_actor(min(before), namespace="serve"))
        counts = sum((asked.result() for asked in asking), Counter[int]())
    assert set(counts) <= {200, 500}
    assert counts[500] <= 8  # each client lost at most what it had asked
    for _ in range(300):
        if len(replicas() - {min(before)}) == 2:
            break
        time.sleep(0.1)
    assert len(replicas() - before) == 1
    assert ask_all("low", 8) == {200: 8}


def test_what_it_cannot_begin_with(tmp_path: Path) -> None:
    with pytest.raises(StorageError):
        application({"model": str(tmp_path)})
    with pytest.raises(ConfigError, match="num_replicas must be at least 1"):
        application({"model": str(tmp_path), "num_replicas": "0"})
    with pytest.raises(ConfigError, match="num_replicas"):
        application({"model": str(tmp_path), "replicas": "2"})
