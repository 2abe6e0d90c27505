"""A growing model that answers over HTTP: an ASGI application, which ``lasem serve`` runs.

Questions that arrive within a few milliseconds are answered together, whatever their tasks are: layers that these share
run once for all. One thread asks the model, others decode images, and the event loop waits for neither.
"""

import asyncio
import base64
import binascii
import json
import os
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, final

import torch
from torch import Tensor

from lasem.errors import ConfigError, DataError, LasemError, ShapeError, StorageError, TaskError, nearest, printable
from lasem.learner.answers import Prediction, decoder, reads
from lasem.learner.growing import GrowingModel

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.types import Message, Receive

INSTALL = "lasem serve needs packages that are not installed: pip install 'lasem[serve]'."
_BODY_SECONDS = 60
_BODIES = 16
"""Bodies of the largest size that may be in memory at once."""


class RefusedError(LasemError):
    """A request that is answered by an error."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@final
@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a server takes, and how long it waits."""

    wait_ms: float = 5
    """Milliseconds that a question waits for others to be answered with."""
    batch: int = 64
    """Images, or texts, that are enough to wait no longer; a request is never divided."""
    queue: int = 1024
    """Images, or texts, that may wait; more are refused with status 503."""
    max_bytes: int = 2**25
    """Bytes of a request's body; larger ones are refused with status 413."""


@dataclass(eq=False)
class _Asked:
    """A request that waits."""

    task: str | None
    """None: all of them."""
    inputs: Sequence[Tensor | str]
    top: int
    arrived: float
    answers: "asyncio.Future[list[Prediction]]" = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


@final
class Server:
    """Answers from one model. It lives in one event loop."""

    def __init__(
        self,
        model: GrowingModel,
        limits: Limits | None = None,
        *,
        threads: int | None = None,
        log: Callable[[str], None],
    ) -> None:
        """Read the model and build its network; errors as of ``GrowingModel.tasks``.

        ConfigError if files cannot be its images.

        Args:
            model: the model, which nothing else in this process may use meanwhile.
            limits: what is taken.
            threads: of torch; None leaves them.
            log: called from any thread with what went wrong here and not at the client.
        """
        try:
            import python_multipart  # noqa: F401  # starlette imports it at the first form
            from prometheus_client import CollectorRegistry, Gauge, Histogram
            from prometheus_client import Counter as Counted
        except ImportError as error:
            raise ConfigError(INSTALL) from error
        self._model, self._limits, self._log = model, limits or Limits(), log
        begin = None if threads is None else lambda: torch.set_num_threads(threads)
        self._asking = ThreadPoolExecutor(1, "lasem-model", begin)
        self._decoding = ThreadPoolExecutor(min(4, os.cpu_count() or 1), "lasem-decode")
        self._waiting, self._enough = deque[_Asked](), asyncio.Event()
        self._run: asyncio.Task[None] | None = None
        self._num_held = self._num_bytes = 0
        self.registry = CollectorRegistry()
        more: dict[str, Any] = {"registry": self.registry}
        self._statuses = Counted("lasem_requests", "Requests by the status of their answer", ["status"], **more)
        self._seconds = Histogram("lasem_request_seconds", "From a request to its answer", **more)
        sizes = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        self._sizes = Histogram("lasem_batch_inputs", "Images, or texts, answered together", buckets=sizes, **more)
        self._answered = Counted("lasem_answers", "Answers by task", ["task"], **more)
        self._cut = Counted("lasem_cut_batches", "Batches with texts whose ends were left out", **more)
        Gauge("lasem_held", "Images, or texts, that wait or are answered", **more).set_function(lambda: self._num_held)
        self._look()
        tuple(model.opened().net.blocks)  # built before anyone asks: that of a pretrained network takes seconds

    def application(self) -> "Starlette":
        """Return the ASGI application."""
        from starlette.applications import Starlette
        from starlette.exceptions import HTTPException
        from starlette.routing import Route

        def refused(_: "Request", error: Exception) -> "Response":  # no such page, or another method
            return self._refusal(error)

        routes = [
            Route("/predict", self._predict, methods=["POST"]),
            Route("/predict/{task}", self._predict, methods=["POST"]),
            Route("/tasks", self._tasks),
            Route("/health", self._health),
            Route("/metrics", self._metrics),
        ]
        return Starlette(routes=routes, exception_handlers={HTTPException: refused})

    async def _predict(self, request: "Request") -> "Response":
        from starlette.responses import JSONResponse

        response: Response
        with self._seconds.time():
            try:
                response = JSONResponse(await self._answer(request))
            except Exception as error:
                response = self._refusal(error)
        self._statuses.labels(response.status_code).inc()
        return response

    async def _tasks(self, _: "Request") -> "Response":
        from starlette.responses import JSONResponse

        try:
            await self._in_worker(self._look)
        except Exception as error:
            return self._refusal(error)
        tasks = [{"name": name, "classes": classes} for name, classes in self._known.items()]
        return JSONResponse({"reads": self._reads, "tasks": tasks})

    async def _health(self, _: "Request") -> "Response":
        from starlette.responses import JSONResponse

        return JSONResponse({"status": "ok"})

    async def _metrics(self, _: "Request") -> "Response":
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
        from starlette.responses import Response

        return Response(generate_latest(self.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _answer(self, request: "Request") -> Any:
        """Return what is answered, as JSON can hold it."""
        task, top = request.path_params.get("task"), request.query_params.get("top", "1")
        if not (top.isascii() and top.isdigit() and 0 < len(top) < 10 and int(top)):
            raise RefusedError(400, f"Expected a number of classes, at least 1, as top; got {printable(top[:80])!r}.")
        if task is not None and task not in self._known:
            await self._in_worker(self._look)
            self._check(task)
        with self._held(1):
            labels, inputs, single = await self._read(request)
            with self._held(len(inputs) - 1):
                found = await self._ask(_Asked(task, inputs, int(top), asyncio.get_running_loop().time()))
        each, unit = len(found) // len(labels), self._reads.removesuffix("s")
        answers = [
            {**({unit: labels[k // each]} if labels[k // each] else {}), "task": answer.task}
            | {"predictions": answer.likeliest[: int(top)]}
            for k, answer in enumerate(found)
        ]
        return answers[0] if single and task is not None else answers

    async def _read(self, request: "Request") -> tuple[list[str], list[Tensor | str], bool]:
        """Return names and what the model takes of the images, or texts, in a body, and whether it is a single one."""
        counted, (pool, loop) = [0], (self._decoding, asyncio.get_running_loop())
        try:
            labels, given, single = await self._body(request, counted)
            if not given:
                raise RefusedError(422, f"Expected {self._reads}; got none.")
            if len(given) > self._limits.queue:
                raise RefusedError(413, f"Expected at most {self._limits.queue:,} {self._reads}; got {len(given):,}.")
            pairs = zip(given, labels, strict=True)
            inputs = await asyncio.gather(*(loop.run_in_executor(pool, self._input, *pair) for pair in pairs))
        finally:
            self._num_bytes -= counted[0]
        return labels, inputs, single

    async def _body(self, request: "Request", counted: list[int]) -> tuple[list[str], list[Any], bool]:
        """Return names, texts or images' bytes, and whether it is a single one; curl calls anything a form."""
        from starlette.datastructures import UploadFile
        from starlette.requests import ClientDisconnect, Request

        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        limited = Request(request.scope, self._limited(request.receive, counted))
        try:
            if int(request.headers.get("content-length", "0")) > self._limits.max_bytes:
                raise self._too_large()
            async with asyncio.timeout(_BODY_SECONDS):
                if kind == "multipart/form-data":
                    async with limited.form(max_files=self._limits.queue) as form:
                        files = [file for _, file in form.multi_items() if isinstance(file, UploadFile)]
                        labels = [printable(file.filename or "")[:200] for file in files]
                        return labels, [await file.read() for file in files], False
                body = await limited.body()
        except TimeoutError:
            raise RefusedError(408, f"Expected the whole body within {_BODY_SECONDS} seconds.") from None
        except ClientDisconnect:
            raise RefusedError(400, "Expected the whole body; the connection was closed.") from None
        if kind == "application/json" or body[:1] == b"{":
            return await asyncio.get_running_loop().run_in_executor(self._decoding, self._in_json, body)
        return [""], [body], True

    def _limited(self, receive: "Receive", counted: list[int]) -> "Receive":
        """A body's parts, of which there may be no more than the limits allow."""

        async def part() -> "Message":
            message = await receive()
            num = len(message.get("body", b""))
            counted[0] += num
            self._num_bytes += num
            if counted[0] > self._limits.max_bytes:
                raise self._too_large()
            if self._num_bytes > _BODIES * self._limits.max_bytes:
                raise RefusedError(503, "The server reads too many bodies at once. Ask again later.")
            return message

        return part

    def _too_large(self) -> RefusedError:
        return RefusedError(413, f"Expected a body of at most {self._limits.max_bytes:,} bytes; it is larger.")

    def _in_json(self, body: bytes) -> tuple[list[str], list[Any], bool]:
        one, many = self._reads.removesuffix("s"), self._reads
        what = "a text" if one == "text" else "base64"
        try:
            asked = json.loads(body)
        except (ValueError, RecursionError):
            raise RefusedError(400, "Expected JSON; the body is none.") from None
        if not isinstance(asked, dict) or len(asked) != 1 or not {one, many} & set(asked):
            raise RefusedError(422, f'Expected {{"{one}": {what}}} or {{"{many}": [{what}, ...]}}.')
        found = asked[many] if many in asked else [asked[one]]
        if not isinstance(found, list) or not all(isinstance(value, str) for value in found):
            raise RefusedError(422, f'Expected {what} in "{one}", or a list of such in "{many}".')
        if one == "text":
            if not all(text.strip() for text in found):
                raise RefusedError(422, "Expected texts; one is empty.")
            return found, found, one in asked
        try:
            return [""] * len(found), [base64.b64decode(text, validate=True) for text in found], one in asked
        except (binascii.Error, ValueError):
            raise RefusedError(422, "Expected images in base64; one is not.") from None

    def _input(self, given: Any, label: str) -> Tensor | str:
        """What the model takes, from bytes or from a text."""
        if isinstance(given, str):
            return given
        if self._decode is None:
            raise RefusedError(422, 'The model reads texts. Expected JSON: {"text": ...} or {"texts": [...]}.')
        return self._decode(given, f"'{label}'" if label else "the one that was sent")

    @contextmanager
    def _held(self, num: int) -> Iterator[None]:
        """Count images, or texts, as long as they are in memory."""
        if self._num_held + num > self._limits.queue:
            raise RefusedError(503, f"More than {self._limits.queue:,} {self._reads} wait. Ask again later.")
        self._num_held += num
        try:
            yield
        finally:
            self._num_held -= num

    async def _ask(self, asked: _Asked) -> list[Prediction]:
        self._waiting.append(asked)
        if sum(len(other.inputs) for other in self._waiting) >= self._limits.batch:
            self._enough.set()
        if self._run is None or self._run.done():
            self._run = asyncio.create_task(self._answer_all())
        return await asked.answers

    async def _answer_all(self) -> None:
        """Answer until nothing waits."""
        while self._waiting:
            left = self._waiting[0].arrived + self._limits.wait_ms / 1000 - asyncio.get_running_loop().time()
            if left > 0:
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._enough.wait(), left)
            batch = [self._waiting.popleft()]
            num = len(batch[0].inputs)
            while self._waiting and num + len(self._waiting[0].inputs) <= self._limits.batch:
                batch.append(self._waiting.popleft())
                num += len(batch[-1].inputs)
            self._enough.clear()
            for asked, found in zip(batch, await self._in_worker(self._answers, batch), strict=True):
                if asked.answers.done():  # cancelled: the server ends
                    continue
                if isinstance(found, Exception):
                    asked.answers.set_exception(found)
                else:
                    asked.answers.set_result(found)

    def _in_worker(self, action: Callable[..., Any], *given: Any) -> Awaitable[Any]:
        return asyncio.get_running_loop().run_in_executor(self._asking, action, *given)

    def _answers(self, batch: Sequence[_Asked], tries: int = 3) -> list[list[Prediction] | Exception]:
        """Answer together, or each alone if one of them fails."""
        try:
            return self._together(batch)
        except Exception as error:
            if len(batch) == 1:
                changed = isinstance(error, TaskError | StorageError)  # perhaps by another process, a moment ago
                return self._answers(batch, tries - 1) if changed and tries > 1 else [error]
        return [found for asked in batch for found in self._answers([asked])]

    def _together(self, batch: Sequence[_Asked]) -> list[list[Prediction] | Exception]:
        self._look()
        everything, questions = tuple(self._known), list[tuple[Tensor | str, Sequence[str]]]()
        errors, notes = dict[_Asked, RefusedError](), list[str]()
        for asked in batch:
            names = everything if asked.task is None else (asked.task,)
            try:
                self._check(*names[:1])
            except RefusedError as error:
                errors[asked] = error
            else:
                questions += [(value, names) for value in asked.inputs]
        top = max(asked.top for asked in batch)
        answers = self._model.predict_many(questions, top=top, note=notes.append)
        sizes = {asked: len(asked.inputs) * (1 if asked.task is not None else len(everything)) for asked in batch}
        found: list[list[Prediction] | Exception]
        found = [errors[asked] if asked in errors else list(islice(answers, sizes[asked])) for asked in batch]
        for name, num in Counter(name for _, names in questions for name in names).items():
            self._answered.labels(name).inc(num)
        self._sizes.observe(len(questions))
        self._cut.inc(bool(notes))
        return found

    def _look(self) -> None:
        """See which tasks there are now."""
        learner = self._model.opened()
        self._known = {name: learner.classes(name) for name in learner.task_names}
        self._reads = reads(learner.net)
        self._decode = decoder(learner.net) if self._reads == "images" else None

    def _check(self, task: str = "") -> None:
        if task not in self._known:
            got = f"got '{printable(task[:100])}'.{nearest(task, self._known)}" if task else "there is none."
            raise RefusedError(404, f"Expected a learned task; {got} GET /tasks lists them.")

    def _refusal(self, error: Exception) -> "Response":
        """An error as a client may see it: no traceback, and no path of this machine."""
        from starlette.exceptions import HTTPException
        from starlette.responses import JSONResponse

        if isinstance(error, RefusedError):
            status, said = error.status, str(error)
        elif isinstance(error, HTTPException):
            status, said = error.status_code, f"{error.detail}."
        elif isinstance(error, DataError):
            status, said = 422, str(error)
        elif isinstance(error, ShapeError):
            status, said = 503, "The model was replaced by another one meanwhile. Ask again."
        else:
            status = 503 if isinstance(error, LasemError) else 500
            said = "The model cannot answer now; the server's output says why."
            self._log(f"lasem: {type(error).__name__}: {' '.join(printable(str(error)).split())}")
        return JSONResponse({"error": said}, status, {"Retry-After": "1"} if status == 503 else None)
