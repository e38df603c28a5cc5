"""More than a hundred bad requests: each is told its field, and the server goes on serving."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.serving.http import MAX_BODY_BYTES
from tests.serving.http_server import MODEL, Served, model, serving

COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
USER = {"role": "user", "content": "hi"}
BASE: dict[str, dict[str, Any]] = {
    COMPLETIONS: {"model": MODEL, "prompt": "hi", "max_tokens": 1},
    CHAT: {"model": MODEL, "messages": [USER], "max_tokens": 1},
}
ABSENT = object()

# Field, and values that it refuses.
SHARED: dict[str, list[Any]] = {
    "model": [ABSENT, None, 3, [MODEL]],
    "temperature": ["1", -0.1, 2.1, True, [], 1e400],
    "top_p": [0, -1, 1.01, "0.9", {}],
    "top_k": [0, 1.5, 2**40, "5"],
    "n": [0, -1, 129, 1.5, "2", False],
    "seed": [2**63, -(2**63) - 1, 0.5, "1"],
    "stop": ["", [""], ["a"] * 5, 3, [3], {"a": 1}, "x" * 1001],
    "stream": ["true", 1],
    "stream_options": [{"include_usage": True}, "usage"],
    "presence_penalty": [0.5, 3, "0", True],
    "frequency_penalty": [-0.5],
    "logit_bias": [{"50": 1}, []],
    "max_tokens": [0, -5, 1.5, "16", 10**12, 10**6],
    "max_token": [16],
    "": [1],
    "ключ": [None],
}
OF_COMPLETIONS: dict[str, list[Any]] = {
    "prompt": [ABSENT, None, "", [], [[]], [""], 3, {"text": "x"}, ["a", 1], [1.5], [True], [-1],
               [2048], [[1], "a"], [[1], [99999]], [None], "word " * 600, [1] * 512],
    "logprobs": [-1, 21, True, "1"],
    "echo": [True, "false"],
    "suffix": ["end"],
    "best_of": [2, "1"],
    "messages": [[USER]],
}  # fmt: skip
OF_CHAT: dict[str, list[Any]] = {
    "messages": [ABSENT, None, [], "hi", {}, [{"role": "user", "content": "word " * 600}]],
    "messages[0]": ["hi", None, []],
    "messages[0].role": [ABSENT, "tool", "robot", 3],
    "messages[0].content": [ABSENT, None, 3, [], [3], [{"type": "image_url", "image_url": {}}],
                            [{"type": "text"}]],
    "messages[0].tool_calls": [[{"id": "1"}]],
    "messages[0].colour": ["red"],
    "logprobs": [3, "true"],
    "top_logprobs": [2, -1, 21],
    "max_completion_tokens": [0, 4],
    "tools": [[{"type": "function"}], "all"],
    "tool_choice": ["required", {"type": "function"}],
    "functions": [[{"name": "f"}]],
    "response_format": [{"type": "json_object"}],
    "modalities": [["text", "audio"]],
    "reasoning_effort": ["high"],
    "web_search_options": [{}],
    "prompt": ["hi"],
}  # fmt: skip
SPECIAL = {"max_completion_tokens": "max_tokens"}  # the other field of a conflict


def bodies() -> list[Any]:
    made = []
    for path, fields in ((COMPLETIONS, SHARED | OF_COMPLETIONS), (CHAT, SHARED | OF_CHAT)):
        for field, values in fields.items():
            for i, value in enumerate(values):
                made.append(pytest.param(path, field, value, id=f"{path[4:]}-{field}-{i}"))
    return made


def with_field(path: str, field: str, value: Any) -> dict[str, Any]:
    body = {**BASE[path]}
    if not field.startswith("messages["):
        target, name = body, field
    elif field == "messages[0]":
        return body | {"messages": [value]}
    else:
        target, name = dict(USER), field.split(".")[1]
        body["messages"] = [target]
    target[name] = value
    if value is ABSENT:
        del target[name]
    return body


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    expected = model().generate("Once upon a time", max_new_tokens=8)
    with serving(num_blocks=32, max_waiting=32) as server:
        yield server
        body = {"model": MODEL, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
        assert server.post(COMPLETIONS, body).json()["choices"][0]["text"] == expected
        server.assert_nothing_held()
        assert server.health()["failed_steps"] == 0


def error_of(answer: httpx.Response) -> dict[str, Any]:
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] and len(error["message"]) < 1100
    return error


def test_there_are_a_hundred() -> None:
    assert len(bodies()) > 100


@pytest.mark.parametrize(("path", "field", "value"), bodies())
def test_the_field_is_named(served: Served, path: str, field: str, value: Any) -> None:
    body = with_field(path, field, value)
    if value == 1e400:
        answer = served.post(path, b'{"model": "tiny-draft", "prompt": "x", "messages": [], "temperature": 1e400}')  # fmt: skip
    else:
        answer = served.post(path, body)
    assert answer.status_code == 400, answer.text
    error = error_of(answer)
    assert error["param"] in (field, SPECIAL.get(field)), error
    assert field in error["message"] or error["param"] in error["message"], error


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b'"text"',
        b"null",
        b'{"model": "tiny-draft", "prompt": "x",}',
        b'{"model": "tiny-draft", "prompt": NaN}',
        b'{"model": "tiny-draft", "prompt": "\\ud800"}',
        b'{"model": "tiny-draft", "prompt": "\xff"}',
        b'{"model": "tiny-draft", "prompt": ' + b"[" * 50_000,
        b'{"model": "tiny-draft", "prompt": "x", "seed": ' + b"9" * 100_000 + b"}",
        b'{"model": "tiny-draft", "prompt": "x"} trailing',
        b'{"model": "tiny-draft", "prompt": "x", "\\udfff": 1}',
        b'{"model": "tiny-draft", "prompt": "x", "{0}": {"a": 1}}',
    ],
)
def test_malformed_bodies(served: Served, body: bytes) -> None:
    for path in (COMPLETIONS, CHAT):
        answer = served.post(path, body)
        assert answer.status_code == 400, answer.text
        error_of(answer)


def test_other_answers_than_400(served: Served) -> None:
    http, text = served.http, {"Content-Type": "text/plain"}
    for answer, status in (
        (http.get("/v1/nothing"), 404),
        (http.post("/v1/embeddings", json={}), 404),
        (http.get("/v1/models/none"), 404),
        (http.get(COMPLETIONS), 405),
        (http.delete("/health"), 405),
        (served.post(COMPLETIONS, BASE[COMPLETIONS] | {"model": "gpt"}), 404),
        (served.post(COMPLETIONS, b" " * (MAX_BODY_BYTES + 1)), 413),
        (http.post(COMPLETIONS, data={"prompt": "x"}), 415),
        (http.post(COMPLETIONS, content=b"{}", headers=text), 415),
    ):
        assert answer.status_code == status
        error_of(answer)


def test_a_body_without_a_length_is_limited_too(served: Served) -> None:
    pieces = (b" " * 65536 for _ in range(64))
    headers = {"Content-Type": "application/json"}
    answer = served.http.post(COMPLETIONS, content=pieces, headers=headers)
    assert answer.status_code == 413 and "1048576" in error_of(answer)["message"]


def test_a_client_that_leaves_while_it_sends(served: Served) -> None:
    host, port = served.url.removeprefix("http://").split(":")
    for sent in (b"POST", b'{"model"'):
        with socket.create_connection((host, int(port))) as connection:
            head = b"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            connection.sendall(
                sent if sent == b"POST" else head + b"Content-Length: 99\r\n\r\n" + sent
            )
    assert served.health()["status"] == "ok"


def test_numbers_of_what_does_not_fit(served: Served) -> None:
    for stream in (False, True):
        body = {"model": MODEL, "prompt": [1] * 400, "max_tokens": 113, "stream": stream}
        error = error_of(served.post(COMPLETIONS, body))
        assert error["code"] == "context_length_exceeded" and error["param"] == "max_tokens"
        assert all(number in error["message"] for number in ("512", "513", "400", "113"))
    with serving(num_blocks=4, block_size=16) as small:
        body = {"model": MODEL, "prompt": [1] * 50, "max_tokens": 16}
        error = error_of(small.post(COMPLETIONS, body))
        assert error["code"] == "kv_pool_exceeded" and error["param"] == "max_tokens"
        assert all(number in error["message"] for number in ("64 tokens", "4 blocks", "66", "50"))
        assert small.post(COMPLETIONS, body | {"max_tokens": 15}).status_code == 200
        error = error_of(small.post(COMPLETIONS, body | {"prompt": [1] * 65}))
        assert error["param"] == "prompt"


def test_more_choices_than_may_wait(served: Served) -> None:
    error = error_of(served.post(COMPLETIONS, BASE[COMPLETIONS] | {"prompt": ["a"] * 33}))
    assert error["param"] == "prompt" and "32" in error["message"]
    error = error_of(served.post(CHAT, BASE[CHAT] | {"n": 33}))
    assert error["param"] == "n"


@pytest.mark.parametrize(
    ("path", "more"),
    [
        (COMPLETIONS, {"echo": False, "suffix": None, "best_of": 1, "logit_bias": {}, "user": "u"}),
        (COMPLETIONS, {"presence_penalty": 0, "frequency_penalty": 0.0, "n": None, "stop": None}),
        (CHAT, {"tools": [], "tool_choice": "auto", "response_format": {"type": "text"}}),
        (CHAT, {"metadata": {"a": "b"}, "store": True, "service_tier": "auto", "stop": []}),
        (CHAT, {"modalities": ["text"], "parallel_tool_calls": True, "max_completion_tokens": 1}),
    ],
)
def test_what_asks_for_nothing_is_accepted(served: Served, path: str, more: dict) -> None:
    answer = served.post(path, BASE[path] | more)
    assert answer.status_code == 200, answer.text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = {
    COMPLETIONS: sorted(set(SHARED | OF_COMPLETIONS) | {"user"}),
    CHAT: sorted(f for f in set(SHARED | OF_CHAT) | {"store"} if "[" not in f),
}


@given(st.data())
def test_any_json_in_any_field(served: Served, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from([COMPLETIONS, CHAT]))
    field = data.draw(st.sampled_from(FIELDS[path]))
    value = data.draw(JSON)
    answer = served.post(path, BASE[path] | {field: value})
    if answer.status_code != 200:
        assert answer.status_code in (400, 404), answer.text
        param = error_of(answer)["param"]
        assert param.startswith(field) or SPECIAL.get(field) == param
