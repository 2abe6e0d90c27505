"""A model over HTTP: its answers are those of ``predict``, whatever comes at once, and what it refuses."""

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from lasem.errors import StorageError
from lasem.learner import GrowingModel

from .images import small_model

httpx = pytest.importorskip("httpx")
pytest.importorskip("starlette")
from lasem.learner.serving import Limits, Server  # noqa: E402

PNG = {"Content-Type": "image/png"}
AS_A_FORM = {"Content-Type": "application/x-www-form-urlencoded"}
"""What curl says of any body."""


@pytest.fixture(scope="module")
def model(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("kept") / "model"
    for name in ("low", "mid", "high"):
        small_model(place).learn(name, images / name)
    return place


@pytest.fixture
def files(images: Path) -> list[Path]:
    return sorted((images / "mid-test").rglob("*.png"))


def serving(model: Path, ask: Callable[[Any, Server], Awaitable[Any]], **limits: Any) -> Any:
    """What a client got, and what the server said of itself."""
    said: list[str] = []

    async def run() -> Any:
        server = Server(GrowingModel(model), Limits(**limits), log=said.append)
        transport = httpx.ASGITransport(app=server.application())
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            found = await ask(client, server)
        assert (server._num_held, server._num_bytes) == (0, 0)
        return found

    return asyncio.run(run()), said


def expected(model: Path, task: str, file: Path, top: int = 1) -> dict[str, Any]:
    (answer,) = GrowingModel(model).predict(task, [file], top=top)
    return {"task": task, "predictions": answer.likeliest}


def close(found: Any, wanted: Any) -> bool:
    """Whether answers are the same; images that are computed together may round a probability otherwise."""
    pairs = list(zip(found["predictions"], wanted["predictions"], strict=True))
    near = all(a["class"] == b["class"] and abs(a["probability"] - b["probability"]) < 3e-6 for a, b in pairs)
    return near and found["task"] == wanted["task"]


def test_answers_are_those_of_predict_in_every_form(model: Path, files: list[Path]) -> None:
    async def ask(client: Any, server: Server) -> None:
        one, two = (file.read_bytes() for file in files[:2])
        alone = (await client.post("/predict/mid?top=3", content=one, headers=PNG)).json()
        assert alone == expected(model, "mid", files[0], 3)
        assert (await client.post("/predict/mid?top=3", content=one)).json() == alone
        assert (await client.post("/predict/mid?top=3", content=one, headers=AS_A_FORM)).json() == alone
        both = [("file", ("a/one.png", one)), ("file", ("two.png", two))]
        found = (await client.post("/predict/low", files=both)).json()
        assert [answer.pop("image") for answer in found] == ["a/one.png", "two.png"]
        assert all(map(close, found, [expected(model, "low", file) for file in files[:2]]))
        texts = [base64.b64encode(data).decode() for data in (one, two)]
        assert (await client.post("/predict/low", json={"images": texts})).json() == found
        assert (await client.post("/predict/mid?top=3", json={"image": texts[0]})).json() == alone
        body = json.dumps({"image": texts[0]})
        assert (await client.post("/predict/mid?top=3", content=body, headers=AS_A_FORM)).json() == alone
        every = (await client.post("/predict", content=one)).json()
        assert all(map(close, every, [expected(model, name, files[0]) for name in ("low", "mid", "high")]))
        tasks = (await client.get("/tasks")).json()
        assert tasks["reads"] == "images"
        assert tasks["tasks"][0] == {"name": "low", "classes": ["digit-0", "digit-1"]}
        assert (await client.get("/health")).json() == {"status": "ok"}
        numbers = (await client.get("/metrics")).text
        assert 'lasem_requests_total{status="200"} 8.0' in numbers
        assert 'lasem_answers_total{task="low"} 5.0' in numbers

    assert serving(model, ask)[1] == []


def test_questions_to_all_tasks_that_come_at_once_are_one_batch(model: Path, files: list[Path]) -> None:
    names = ["low", "mid", "high", "mdi"] * 8

    async def ask(client: Any, server: Server) -> Any:
        def post(k: int) -> Awaitable[Any]:
            where = f"/predict/{names[k]}?top={1 + k % 3}"
            return client.post(where, content=files[k % len(files)].read_bytes())

        found = await asyncio.gather(*map(post, range(len(names))))
        return [(answer.status_code, answer.json()) for answer in found], (await client.get("/metrics")).text

    (found, numbers), said = serving(model, ask, wait_ms=500, batch=24)
    for k, (name, (status, answer)) in enumerate(zip(names, found, strict=True)):
        if name == "mdi":
            assert status == 404
            assert "Did you mean 'mid'?" in answer["error"]
        else:
            assert status == 200
            assert close(answer, expected(model, name, files[k % len(files)], 1 + k % 3))
    assert "lasem_batch_inputs_count 1.0" in numbers
    assert "lasem_batch_inputs_sum 24.0" in numbers
    assert said == []


def test_tasks_that_come_and_go_are_noticed(place: Path, images: Path, files: list[Path]) -> None:
    async def ask(client: Any, server: Server) -> None:
        def post(name: str) -> Awaitable[Any]:
            return client.post(f"/predict/{name}", content=files[0].read_bytes())

        assert (await post("new")).status_code == 404
        GrowingModel(place).forget("high")
        small_model(place).learn("new", images / "high")
        assert (await post("new")).json() == expected(place, "new", files[0])
        gone, there = await asyncio.gather(post("high"), post("low"))
        assert gone.status_code == 404
        assert close(there.json(), expected(place, "low", files[0]))
        assert [task["name"] for task in (await client.get("/tasks")).json()["tasks"]] == ["low", "mid", "new"]

    assert serving(place, ask)[1] == []


def test_a_task_that_is_forgotten_between_a_look_and_an_answer(
    place: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GrowingModel.predict_many

    def forgotten_before(growing: GrowingModel, *given: Any, **more: Any) -> Any:
        if "high" in GrowingModel(place).tasks:
            GrowingModel(place).forget("high")
        return real(growing, *given, **more)

    monkeypatch.setattr(GrowingModel, "predict_many", forgotten_before)

    async def ask(client: Any, server: Server) -> Any:
        data = files[0].read_bytes()
        return await asyncio.gather(*(client.post(f"/predict{at}", content=data) for at in ("", "/low", "/high")))

    (every, low, high), said = serving(place, ask)
    assert [answer["task"] for answer in every.json()] == ["low", "mid"]
    assert close(low.json(), expected(place, "low", files[0]))
    assert (high.status_code, said) == (404, [])


def test_what_is_refused(model: Path, files: list[Path]) -> None:
    one = files[0].read_bytes()
    requests: list[tuple[int, str, str, dict[str, Any]]] = [
        (404, "Did you mean 'low'?", "/predict/lwo", {"content": one}),
        (404, "Not Found", "/nothing", {"content": one}),
        (405, "Method Not Allowed", "/tasks", {"content": one}),
        (400, "at least 1, as top; got '0'", "/predict/low?top=0", {"content": one}),
        (400, "got 'many'", "/predict/low?top=many", {"content": one}),
        (413, "at most 4,000 bytes", "/predict/low", {"content": bytes(4001)}),
        (422, "can be decoded, but the one that was sent cannot", "/predict/low", {"content": b"no image"}),
        (422, "but 'b.png' cannot", "/predict/low", {"files": [("x", ("a.png", one)), ("x", ("b.png", b"no"))]}),
        (422, "got none", "/predict/low", {"json": {"images": []}}),
        (422, "in base64", "/predict/low", {"json": {"images": ["?"]}}),
        (422, "Expected base64 in", "/predict/low", {"json": {"images": [3]}}),
        (422, 'Expected {"image": base64}', "/predict/low", {"json": {"text": "What a film!"}}),
        (413, "at most 3 images; got 4", "/predict/low", {"json": {"images": [""] * 4}}),
        (400, "Too many files", "/predict/low", {"files": [("x", ("a.png", b""))] * 4}),
    ]
    json_head = {"Content-Type": "application/json"}
    requests += [
        (400, "the body is none", "/predict/low", {"content": body, "headers": json_head})
        for body in (b"{", b"[" * 3999)
    ]

    async def ask(client: Any, server: Server) -> None:
        for status, said, where, how in requests:
            found = await client.post(where, **how)
            assert (found.status_code, list(found.json())) == (status, ["error"]), found.text
            assert said in found.json()["error"]

        async def parts() -> Any:
            for _ in range(5):
                yield bytes(1000)

        assert (await client.post("/predict/low", content=parts())).status_code == 413  # no length is said before

    assert serving(model, ask, max_bytes=4000, queue=3)[1] == []


def test_more_than_the_queue_holds_is_refused_and_the_rest_answered(model: Path, files: list[Path]) -> None:
    async def ask(client: Any, server: Server) -> Any:
        posts = (client.post("/predict/low", content=files[0].read_bytes()) for _ in range(7))
        return await asyncio.gather(*posts)

    found, _ = serving(model, ask, queue=4)
    assert sorted(answer.status_code for answer in found) == [200] * 4 + [503] * 3
    assert all(answer.headers["Retry-After"] == "1" for answer in found if answer.status_code == 503)


def test_a_model_that_cannot_be_read_is_said_to_the_server_alone(place: Path, files: list[Path]) -> None:
    async def ask(client: Any, server: Server) -> list[Any]:
        (place / "config.json").rename(place / "other.json")
        found = [await client.post("/predict/low", content=files[0].read_bytes()), await client.get("/tasks")]
        (place / "other.json").rename(place / "config.json")
        return [*found, await client.post("/predict/low", content=files[0].read_bytes())]

    found, said = serving(place, ask)
    assert [answer.status_code for answer in found] == [503, 503, 200]
    assert str(place) not in found[0].text + found[1].text
    assert len(said) == 2
    assert str(place) in said[0]
    with pytest.raises(StorageError):
        Server(GrowingModel(place / "none"), log=said.append)


def test_one_request_that_fails_leaves_the_others(
    model: Path, files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = GrowingModel.predict_many

    def failing(growing: GrowingModel, questions: Any, **more: Any) -> Any:
        if any(names == ("mid",) for _, names in questions):
            raise RuntimeError(f"no memory in {model}")
        return real(growing, questions, **more)

    monkeypatch.setattr(GrowingModel, "predict_many", failing)

    async def ask(client: Any, server: Server) -> Any:
        data = files[0].read_bytes()
        return await asyncio.gather(*(client.post(f"/predict/{name}", content=data) for name in ("low", "mid", "high")))

    found, said = serving(model, ask)
    assert [answer.status_code for answer in found] == [200, 500, 200]
    assert str(model) not in found[1].text
    assert "RuntimeError" in said[0]


def test_large_images_are_refused_by_their_header(model: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.new("1", (9000, 9000)).save(tmp_path / "large.png")

    async def ask(client: Any, server: Server) -> Any:
        return await client.post("/predict/low", content=(tmp_path / "large.png").read_bytes())

    found, _ = serving(model, ask)
    assert found.status_code == 422
    assert "9000x9000 pixels, more than the 64 megapixels allowed" in json.loads(found.text)["error"]
