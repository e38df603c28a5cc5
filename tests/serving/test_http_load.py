"""Many clients at once, clients that leave, a full queue, and memory over thousands of requests."""

from __future__ import annotations

import asyncio
import gc
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from functools import partial

import httpx
import openai
import psutil
import pytest
from openai import AsyncOpenAI

from tests.serving.http_server import MODEL, Served, model, serving, wait_until

LONG = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 500, "temperature": 0}
ENDLESS = LONG | {"temperature": 2.0, "seed": 0, "stream": True}
MEGABYTE = 1 << 20


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(num_blocks=96, max_batch=16, token_budget=128, max_waiting=256) as server:
        yield server


async def stream_texts(url: str, calls: list[dict]) -> list[str]:
    """The texts of all calls, streamed at the same time."""
    async with AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client:

        async def one(call: dict) -> str:
            text, reason = "", None
            async for chunk in await client.completions.create(**call, stream=True):
                text += chunk.choices[0].text
                assert reason is None, "text behind the end"
                reason = chunk.choices[0].finish_reason
            assert reason in ("length", "stop")
            return text

        return await asyncio.gather(*(one(call) for call in calls))


def test_200_concurrent_streams(served: Served) -> None:
    prompts = ["Once upon a time", "def main(", "The cat", "import os", "7 + 5 ="]
    expected = {p: model().generate(p, max_new_tokens=8) for p in prompts}
    used = [prompts[i % len(prompts)] for i in range(200)]
    calls = [dict(model=MODEL, prompt=p, max_tokens=8, temperature=0) for p in used]
    before = served.stats()["finished"]
    texts = asyncio.run(stream_texts(served.url, calls))
    assert texts == [expected[p] for p in used]
    assert served.stats()["finished"] - before == 200
    served.assert_nothing_held()


def test_streams_with_preemption() -> None:
    with serving(num_blocks=7, block_size=4, max_batch=4) as server:
        calls = [
            dict(model=MODEL, prompt=[5 + i, 9, 11], max_tokens=16, temperature=1, seed=i)
            for i in range(8)
        ]
        together = asyncio.run(stream_texts(server.url, calls))
        assert server.stats()["preemptions"] > 0
        alone = [asyncio.run(stream_texts(server.url, [call]))[0] for call in calls]
        assert together == alone
        server.assert_nothing_held()


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_client_that_leaves_its_stream(served: Served, path: str) -> None:
    body = {**ENDLESS}
    if "chat" in path:
        body["messages"] = [{"role": "user", "content": body.pop("prompt")}]
        body["max_tokens"] = 480
    before = served.stats()
    with served.http.stream("POST", path, json=body) as answer:
        lines = answer.iter_lines()
        for _ in range(8):
            next(lines)
        assert served.stats()["blocks_used"] > 0
    served.assert_nothing_held()
    after = served.stats()
    assert after["cancelled"] == before["cancelled"] + 1
    assert after["generated_tokens"] - before["generated_tokens"] < 400


def raw_post(served: Served, body: dict) -> socket.socket:
    host, port = served.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    content = json.dumps(body).encode()
    head = (
        "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(content)}\r\n\r\n"
    )
    connection.sendall(head.encode() + content)
    return connection


@pytest.mark.parametrize("n", [1, 3])
def test_a_client_that_leaves_before_its_answer(served: Served, n: int) -> None:
    before = served.stats()["cancelled"]
    with raw_post(served, ENDLESS | {"stream": False, "n": n}):
        wait_until(lambda: served.stats()["running"] == n)
    served.assert_nothing_held()
    assert served.stats()["cancelled"] == before + n


def test_a_client_that_leaves_the_queue() -> None:
    with serving(num_blocks=64, max_batch=1, max_waiting=8) as server:
        with raw_post(server, ENDLESS | {"stream": False}):
            wait_until(lambda: server.stats()["running"] == 1)
            with raw_post(server, ENDLESS):
                wait_until(lambda: server.stats()["waiting"] == 1)
            wait_until(lambda: server.stats()["waiting"] == 0)
            assert server.stats()["running"] == 1
        server.assert_nothing_held()
        assert server.stats()["cancelled"] == 2


def in_engine(server: Served, requests: int) -> bool:
    stats = server.stats()
    return stats["running"] + stats["waiting"] == requests


def test_a_full_queue() -> None:
    with serving(num_blocks=64, max_batch=1, max_waiting=2) as server, server.client() as client:
        streams = []
        for i in range(3):
            streams.append(client.completions.create(**ENDLESS))
            wait_until(partial(in_engine, server, i + 1))
            wait_until(lambda: server.stats()["running"] == 1)
        for stream in (False, True):
            with pytest.raises(openai.RateLimitError) as full:
                client.completions.create(**ENDLESS | {"stream": stream})
            assert full.value.code == "rate_limit_exceeded"
            assert full.value.response.headers["retry-after"] == "1"
        # Two more choices need two places: none of them is left behind.
        streams.pop().close()
        wait_until(lambda: server.stats()["waiting"] == 1)
        with pytest.raises(openai.RateLimitError):
            client.completions.create(**ENDLESS | {"n": 2})
        assert server.stats()["waiting"] == 1
        for left in streams:
            left.close()
        server.assert_nothing_held()
        answer = client.completions.create(**LONG | {"max_tokens": 4})
        assert answer.choices[0].text == model().generate("Once upon a time", max_new_tokens=4)


def work_through(url: str, count: int) -> None:
    """``count`` requests of every kind: whole, streamed, refused, left; each text a new one."""
    with httpx.Client(base_url=url, timeout=60) as http:
        for i in range(count):
            body = {"model": MODEL, "prompt": f"{i} is a number", "max_tokens": 2}
            kind = i % 8
            if kind < 4:
                http.post("/v1/completions", json=body | {"logprobs": 2}).raise_for_status()
            elif kind == 4:
                assert http.post("/v1/completions", json=body | {"n": "2"}).status_code == 400
            elif kind < 7:
                with http.stream("POST", "/v1/completions", json=body | {"stream": True}) as got:
                    assert "data: [DONE]" in list(got.iter_lines())
            else:
                endless = body | {"stream": True, "max_tokens": 400, "temperature": 2}
                with http.stream("POST", "/v1/completions", json=endless) as got:
                    next(got.iter_lines())


def test_200_requests_leave_nothing(served: Served) -> None:
    work_through(served.url, 40)
    served.assert_nothing_held()
    gc.collect()
    objects, memory = len(gc.get_objects()), psutil.Process().memory_info().rss
    work_through(served.url, 200)
    served.assert_nothing_held()
    gc.collect()
    # What the engine remembers on purpose: the newest 1,000 times and the prefixes of 96 blocks.
    assert len(gc.get_objects()) - objects < 2000
    assert psutil.Process().memory_info().rss - memory < 8 * MEGABYTE


def start_server(*words: str) -> tuple[subprocess.Popen[str], str]:
    """`slmlab serve` in a process of its own, and its address."""
    process = subprocess.Popen(
        [sys.executable, "-m", "slmlab.cli", "serve", "--model", MODEL, "--port", "0", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None and process.stderr is not None
    greeting, example = process.stdout.readline(), process.stdout.readline()
    found = re.search(r"(http://127\.0\.0\.1:\d+)/v1 ", greeting)
    assert found and f"curl {found[1]}/v1/completions" in example, process.stderr.read()
    return process, found[1]


def test_the_command_serves_until_ctrl_c() -> None:
    process, url = start_server()
    try:
        body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 4, "temperature": 0}
        text = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["choices"][0][
            "text"
        ]
        assert text == model().generate("Once upon a time", max_new_tokens=4)
        with httpx.stream("POST", f"{url}/v1/completions", json=ENDLESS, timeout=60) as answer:
            lines = answer.iter_lines()
            next(lines)
            process.send_signal(signal.SIGINT)
            rest = [line for line in lines if line]
        assert "server_closing" in rest[-2] and rest[-1] == "data: [DONE]"
        said, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
        assert (said, errors) == ("Stopped.\n", "")
    finally:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_memory_is_flat_over_2000_requests() -> None:
    process, url = start_server("--num-blocks", "96", "--max-batch", "8")
    try:
        memory = psutil.Process(process.pid).memory_info
        work_through(url, 500)
        before = memory().rss
        work_through(url, 2000)
        grown = memory().rss - before
        assert grown < 6 * MEGABYTE
        stats = httpx.get(f"{url}/health").json()["stats"]
        assert stats["running"] == stats["waiting"] == stats["blocks_used"] == 0
        print(f"resident memory grew by {grown / 1024:.0f} KiB over 2,000 requests")
    finally:
        process.kill()
        process.communicate()
