"""A step that raises, logits that are NaN, a model without a chat template, a shutdown."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import openai
import pytest

from slmlab.serving import Engine
from slmlab.serving.http import create_app
from slmlab.serving.worker import EngineFailed, Job, ServerClosing, Worker
from tests.serving.http_server import MODEL, Served, model, serving, wait_until

CALL: dict[str, Any] = dict(model=MODEL, prompt="Once upon a time", max_tokens=6, temperature=0)
ENDLESS = CALL | {"max_tokens": 400, "temperature": 2.0, "seed": 0}


@pytest.fixture
def served() -> Iterator[Served]:
    with serving(num_blocks=64, max_batch=4, max_waiting=16) as server:
        yield server


def raising(step: Callable[[], Any], after: int) -> Callable[[], Any]:
    """``step`` that raises in its call number ``after``, after its work was done."""
    left = after

    def broken() -> Any:
        nonlocal left
        left -= 1
        outputs = step()
        if left == 0:
            raise RuntimeError("the 7th tensor is upside down")
        return outputs

    return broken


def serves(server: Served) -> bool:
    with server.client() as client:
        text = client.completions.create(**CALL).choices[0].text
    return text == model().generate("Once upon a time", max_new_tokens=6)


def test_a_step_that_raises(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.engine, "step", raising(served.engine.step, 4))
    with served.client() as client:
        with pytest.raises(openai.InternalServerError) as error:
            client.completions.create(**ENDLESS)
        assert error.value.code == "engine_error" and "upside down" in error.value.message
    health = served.http.get("/health")
    assert health.status_code == 503 and health.json()["status"] == "error"
    assert health.json()["failed_steps"] == 1 and "upside down" in health.json()["last_error"]
    served.assert_nothing_held()
    assert serves(served)
    assert served.health()["status"] == "ok" and served.health()["failed_steps"] == 1


def test_a_step_that_raises_ends_streams(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.engine, "step", raising(served.engine.step, 12))
    seen = 0
    with served.client() as client, pytest.raises(openai.APIError, match="upside down"):
        for _ in client.completions.create(**ENDLESS, stream=True):
            seen += 1
    assert seen > 0
    served.assert_nothing_held()
    assert serves(served)


def test_an_end_within_the_failed_step(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.engine, "step", raising(served.engine.step, 1))
    with served.client() as client, pytest.raises(openai.InternalServerError):
        client.completions.create(**CALL | {"max_tokens": 1})
    served.assert_nothing_held()
    assert serves(served)


def test_an_engine_that_cannot_be_emptied(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(request_id: int) -> None:
        raise RuntimeError("no way back")

    monkeypatch.setattr(served.engine, "step", raising(served.engine.step, 3))
    monkeypatch.setattr(served.engine, "cancel", refuse)
    with served.client() as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError, match="upside down"):
                client.completions.create(**ENDLESS)
    health = served.http.get("/health")
    assert health.status_code == 503 and health.json()["status"] == "stopped"


def test_a_bug_of_the_worker_reaches_the_client(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(served.engine, "result", lambda request_id: {}[request_id])
    with served.client() as client:
        for _ in range(2):
            with pytest.raises(openai.InternalServerError):
                client.completions.create(**CALL)
    assert served.health()["status"] == "stopped"


@pytest.mark.parametrize("stream", [False, True])
def test_logits_that_are_nan(served: Served, monkeypatch: pytest.MonkeyPatch, stream: bool) -> None:
    forward = served.engine._forward
    monkeypatch.setattr(served.engine, "_forward", lambda plan: forward(plan) * float("nan"))
    with served.client() as client, pytest.raises(openai.APIError, match="NaN"):
        answer = client.completions.create(**CALL, stream=stream)
        for _ in answer:
            pass
    served.assert_nothing_held()
    monkeypatch.undo()
    assert serves(served)


def test_a_model_without_a_chat_template() -> None:
    import slmlab

    lm = slmlab.load(MODEL)
    lm.tokenizer.chat_template = None
    body = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    with serving(lm) as server:
        error = server.post("/v1/chat/completions", body).json()["error"]
        assert error["param"] == "messages" and "/v1/completions" in error["message"]
        lm.tokenizer.chat_template = "{{ raise_exception('roles must alternate') }}"
        answer = server.post("/v1/chat/completions", body)
        assert answer.status_code == 400
        assert "roles must alternate" in answer.json()["error"]["message"]


def test_a_shutdown_ends_running_and_waiting_requests() -> None:
    ended: list[str] = []

    def call(server: Served, stream: bool) -> None:
        with server.client() as client:
            try:
                for _ in client.completions.create(**ENDLESS, stream=stream):
                    pass
            except openai.APIError as error:
                ended.append(error.code or "")

    with serving(num_blocks=64, max_batch=1) as server:
        threads = [threading.Thread(target=call, args=(server, i % 2 == 0)) for i in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: server.stats()["running"] + server.stats()["waiting"] == 4)
    for thread in threads:
        thread.join(30)
    assert ended == ["server_closing"] * 4
    assert server.engine.idle and server.engine.pool.num_used == 0


def test_after_close_the_worker_takes_nothing() -> None:
    async def scenario() -> None:
        engine = Engine(model(), num_blocks=8)
        worker = Worker(engine)
        job = await worker.submit([dict(prompt=[1, 2], max_new_tokens=100)], stream=True)
        worker.close()
        worker.close()
        with pytest.raises(ServerClosing):
            await worker.submit([], stream=True)
        with pytest.raises(ServerClosing):
            await worker.stats()
        worker.cancel(job)
        with pytest.raises(ServerClosing):
            async for _ in job.events(1):
                pass
        await worker.join()
        assert engine.idle and engine.pool.num_used == 0 and not worker.alive

    asyncio.run(scenario())


def test_a_call_that_is_given_up_leaves_nothing() -> None:
    async def scenario() -> None:
        engine = Engine(model(), num_blocks=64)
        worker = Worker(engine)
        requests = [dict(prompt=[1, 2], max_new_tokens=400)]
        busy = await worker.submit(requests, stream=False)
        for rounds in range(20):
            task = asyncio.create_task(worker.submit(requests, stream=False))
            for _ in range(rounds % 4):
                await asyncio.sleep(0)
            task.cancel()
            (given,) = await asyncio.gather(task, return_exceptions=True)
            if isinstance(given, Job):  # it was quicker than the one who gave up
                worker.cancel(given)
        worker.cancel(busy)
        stats = await worker.stats()
        assert stats["running"] + stats["waiting"] + stats["blocks_used"] == 0
        assert not engine._results
        worker.close()
        await worker.join()

    asyncio.run(scenario())


def test_a_failed_engine_refuses_requests() -> None:
    async def scenario() -> None:
        worker = Worker(Engine(model(), num_blocks=8))
        worker._broken = True
        with pytest.raises(EngineFailed):
            await worker.submit([dict(prompt=[1], max_new_tokens=1)], stream=False)
        worker.close()
        await worker.join()

    asyncio.run(scenario())


def test_create_app_checks_its_arguments() -> None:
    engine = Engine(model(), num_blocks=4)
    with pytest.raises(TypeError, match="engine"):
        create_app(SimpleNamespace())  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="model_name"):
        create_app(engine, "")
    with pytest.raises(TypeError, match="model_name"):
        create_app(engine, 3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_body_bytes"):
        create_app(engine, max_body_bytes=0)
