"""A real uvicorn server in a thread, on a free port of the loopback."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

import httpx
from fastapi import FastAPI
from openai import OpenAI

import slmlab
from slmlab.cli.serve import Server, listen, make_server
from slmlab.generation import LanguageModel
from slmlab.serving import Engine
from slmlab.serving.http import create_app

MODEL = "tiny-draft"  # quick, and with a chat template


@cache
def model() -> LanguageModel:
    return slmlab.load(MODEL)


@dataclass
class Served:
    """A running server. ``engine`` belongs to its thread: only look while nothing runs."""

    engine: Engine
    app: FastAPI
    server: Server
    url: str
    http: httpx.Client

    def client(self, **settings: Any) -> Any:
        """An ``OpenAI``; ``Any`` because its overloads do not take calls kept in a dict."""
        return OpenAI(base_url=f"{self.url}/v1", api_key="none", max_retries=0, **settings)

    def health(self) -> dict[str, Any]:
        return self.http.get("/health").json()

    def stats(self) -> dict[str, Any]:
        return self.health()["stats"]

    def post(self, path: str, body: Any, **settings: Any) -> httpx.Response:
        """POST JSON, or bytes as they are, as application/json."""
        if not isinstance(body, bytes):
            return self.http.post(path, json=body, **settings)
        headers = {"Content-Type": "application/json"}
        return self.http.post(path, content=body, headers=headers, **settings)

    def assert_nothing_held(self) -> None:
        """No request, result or block is left anywhere."""
        wait_until(lambda: self.stats()["running"] + self.stats()["waiting"] == 0)
        assert self.stats()["blocks_used"] == 0
        assert not self.engine._requests and not self.engine._results
        assert not self.app.state.worker._jobs


def wait_until(condition: Callable[[], bool]) -> None:
    """Give the server's threads time to get there; far more than they need."""
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "the server never got there"
        time.sleep(0.01)


@contextmanager
def serving(lm: LanguageModel | None = None, **sizes: Any) -> Iterator[Served]:
    engine = Engine(lm or model(), **sizes)
    app = create_app(engine, MODEL)
    listener = listen("127.0.0.1", 0)
    server = make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_until(lambda: server.started)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=url, timeout=60) as http:
            yield Served(engine, app, server, url, http)
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive(), "the server did not shut down"
        assert not app.state.worker._thread.is_alive()
