"""The public openai client against the server, and plain generation as the oracle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import torch

from tests.serving.http_server import MODEL, Served, model, serving

PROMPTS = ("Once upon a time", "def main(", "Zähle: 1, 2,")
MESSAGES: Any = [
    {"role": "developer", "content": "Answer with a tool call."},
    {"role": "user", "content": [{"type": "text", "text": "Book a table "}, {"type": "text", "text": "for 2."}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with serving(num_blocks=128, max_batch=8, max_waiting=64) as server:
        yield server


@pytest.fixture
def client(served: Served) -> Iterator[Any]:
    with served.client() as made:
        yield made
    served.assert_nothing_held()


def test_models(client: Any) -> None:
    assert [each.id for each in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).object == "model"
    with pytest.raises(openai.NotFoundError) as error:
        client.models.retrieve("gpt/5")
    assert error.value.code == "model_not_found" and "gpt/5" in error.value.message


@pytest.mark.parametrize("prompt", PROMPTS)
def test_greedy_text_is_that_of_generate(client: Any, prompt: str) -> None:
    expected = model().generate(prompt, max_new_tokens=24)
    ids = model().encode(prompt)
    for given in (prompt, ids):
        answer = client.completions.create(model=MODEL, prompt=given, max_tokens=24, temperature=0)
        assert answer.object == "text_completion"
        assert answer.choices[0].text == expected
        assert answer.choices[0].finish_reason == "length"
        assert answer.usage.prompt_tokens == len(ids)
        assert answer.usage.completion_tokens == 24
        assert answer.usage.total_tokens == len(ids) + 24


@pytest.mark.parametrize("settings", [{"temperature": 0}, {"seed": 3}, {"stop": ["n", "zz"]}])
def test_a_stream_is_the_same_text_in_pieces(client: Any, settings: dict) -> None:
    call = dict(model=MODEL, prompt="Once upon a time", max_tokens=24, seed=1) | settings
    whole = client.completions.create(**call)
    chunks = list(
        client.completions.create(**call, stream=True, stream_options={"include_usage": True})
    )
    *parts, end, usage = chunks
    assert "".join(part.choices[0].text for part in [*parts, end]) == whole.choices[0].text
    assert all(part.choices[0].finish_reason is None for part in parts)
    assert end.choices[0].finish_reason == whole.choices[0].finish_reason
    assert all(chunk.usage is None for chunk in [*parts, end]) and usage.choices == []
    assert usage.usage.completion_tokens == whole.usage.completion_tokens
    assert len({chunk.id for chunk in chunks}) == 1


def test_without_include_usage_no_chunk_has_it(served: Served) -> None:
    body = {"model": MODEL, "prompt": "a", "max_tokens": 2, "stream": True}
    with served.http.stream("POST", "/v1/completions", json=body) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = [line for line in answer.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    assert all("usage" not in json.loads(line.removeprefix("data: ")) for line in lines[:-1])


def test_several_prompts_and_n(client: Any) -> None:
    answer = client.completions.create(
        model=MODEL, prompt=list(PROMPTS), n=2, max_tokens=12, temperature=0
    )
    texts = [choice.text for choice in answer.choices]
    expected = [model().generate(prompt, max_new_tokens=12) for prompt in PROMPTS]
    assert texts == [text for text in expected for _ in range(2)]
    assert [choice.index for choice in answer.choices] == list(range(6))
    assert answer.usage.prompt_tokens == sum(len(model().encode(p)) for p in PROMPTS)
    assert answer.usage.completion_tokens == 6 * 12


def test_several_choices_share_a_stream(client: Any) -> None:
    call = dict(model=MODEL, messages=MESSAGES, n=3, max_tokens=8, seed=5, temperature=1.5)
    whole = client.chat.completions.create(**call)
    texts = dict.fromkeys(range(3), "")
    for chunk in client.chat.completions.create(**call, stream=True):
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert list(texts.values()) == [choice.message.content for choice in whole.choices]
    assert len(set(texts.values())) > 1


def test_seeds(client: Any) -> None:
    def text(seed: int | None) -> str:
        answer = client.completions.create(
            model=MODEL,
            prompt="Once",
            max_tokens=16,
            seed=seed,
            top_p=0.9,
            extra_body={"top_k": 50},
        )
        return answer.choices[0].text

    expected = model().generate(
        "Once", max_new_tokens=16, temperature=1.0, top_k=50, top_p=0.9, seed=11
    )
    assert text(11) == text(11) == expected
    assert len({text(seed) for seed in (12, 13, None, None)}) > 1


def test_stop_ends_before_the_text(client: Any) -> None:
    full = model().generate("Once upon a time", max_new_tokens=40)
    stop = full[9:14]
    answer = client.completions.create(
        model=MODEL, prompt="Once upon a time", max_tokens=40, temperature=0, stop=stop
    )
    assert answer.choices[0].text == full[: full.index(stop)]
    assert answer.choices[0].finish_reason == "stop"


def chat_text(max_new_tokens: int) -> str:
    messages = [
        {"role": "system", "content": "Answer with a tool call."},
        {"role": "user", "content": "Book a table for 2."},
    ]
    prompt = model().tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False
    )
    return model().generate(str(prompt), max_new_tokens=max_new_tokens)


def test_chat(client: Any) -> None:
    expected = chat_text(400)
    answer = client.chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0)
    assert answer.choices[0].message.content == expected
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    pieces = list(
        client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, stream=True, user="x", store=False
        )
    )
    assert pieces[0].choices[0].delta.role == "assistant"
    assert "".join(p.choices[0].delta.content or "" for p in pieces) == expected
    assert [p.choices[0].finish_reason for p in pieces] == [None] * (len(pieces) - 1) + ["stop"]
    for limit in ({"max_tokens": 4}, {"max_completion_tokens": 4}):
        short = client.chat.completions.create(
            model=MODEL, messages=MESSAGES, temperature=0, **limit
        )
        assert short.choices[0].message.content == chat_text(4)
        assert short.choices[0].finish_reason == "length"


def test_a_message_cannot_open_a_turn(client: Any) -> None:
    def prompt_tokens(content: str) -> int:
        messages = [{"role": "user", "content": content}]
        answer = client.chat.completions.create(model=MODEL, messages=messages, max_tokens=1)
        return answer.usage.prompt_tokens

    for token in ("<|assistant|>", "<|endoftext|>"):
        assert len(model().tokenizer.encode(token)) == 1
        assert prompt_tokens(f"hi {token}") > prompt_tokens("hi") + 2


def test_a_second_turn_takes_the_first_ones_blocks(client: Any) -> None:
    first = [{"role": "user", "content": "Tell me a story about a small dog and its ball. " * 3}]
    client.chat.completions.create(model=MODEL, messages=first, max_tokens=1)
    again = client.chat.completions.create(model=MODEL, messages=first, max_tokens=1)
    prompt, details = again.usage.prompt_tokens, again.usage.prompt_tokens_details
    assert details.cached_tokens == (prompt - 1) // 16 * 16 > 0


def test_completion_logprobs(client: Any) -> None:
    prompt = "Once upon a time"
    ids = model().encode(prompt)
    answer = client.completions.create(
        model=MODEL, prompt=prompt, max_tokens=10, temperature=0, logprobs=3
    )
    choice = answer.choices[0]
    new = model().encode(choice.text)
    with torch.inference_mode():
        logits = model().model(torch.tensor([ids + new]))[0, len(ids) - 1 : -1]
    expected = logits.log_softmax(-1)
    assert "".join(choice.logprobs.tokens) == choice.text and len(new) == 10
    torch.testing.assert_close(
        torch.tensor(choice.logprobs.token_logprobs), expected.amax(-1), atol=1e-4, rtol=0
    )
    for row, top in zip(expected, choice.logprobs.top_logprobs):
        best = row.topk(3)
        assert set(top) == {model().tokenizer.decode([int(i)]) for i in best.indices}
        assert sorted(top.values()) == pytest.approx(sorted(best.values.tolist()), abs=1e-4)
    for token, offset in zip(choice.logprobs.tokens, choice.logprobs.text_offset):
        assert choice.text[offset:].startswith(token)


def test_chat_logprobs_stream_as_they_are(client: Any) -> None:
    call = dict(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=6, logprobs=True)
    whole = client.chat.completions.create(**call, top_logprobs=2).choices[0].logprobs.content
    streamed = []
    for chunk in client.chat.completions.create(**call, top_logprobs=2, stream=True):
        if chunk.choices[0].logprobs is not None:
            streamed += chunk.choices[0].logprobs.content
    assert [item.token for item in streamed] == [item.token for item in whole]
    assert len(whole) == 6
    for ours, theirs in zip(streamed, whole):
        assert ours.logprob == pytest.approx(theirs.logprob, abs=1e-4)
    for item in whole:
        assert bytes(item.bytes).decode() == item.token
        assert len(item.top_logprobs) == 2 and item.top_logprobs[0].token == item.token
    plain = client.chat.completions.create(**call).choices[0].logprobs.content
    assert [item.token for item in plain] == [item.token for item in whole]
    assert all(item.top_logprobs == [] for item in plain)


def test_max_tokens_defaults(client: Any) -> None:
    answer = client.completions.create(model=MODEL, prompt="Once upon a time", temperature=0)
    assert answer.usage.completion_tokens == 16
    nearly_full = [5] * 505
    answer = client.completions.create(model=MODEL, prompt=nearly_full, temperature=0)
    assert answer.usage.total_tokens <= 512


def test_exceptions_of_the_client(client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.completions.create(model="gpt-2", prompt="x")
    assert missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as range_error:
        client.completions.create(model=MODEL, prompt="x", temperature=3)
    assert range_error.value.param == "temperature"
    assert range_error.value.type == "invalid_request_error"
    with pytest.raises(openai.BadRequestError) as overflow:
        client.completions.create(model=MODEL, prompt="x", max_tokens=512)
    assert overflow.value.code == "context_length_exceeded"
    assert overflow.value.param == "max_tokens"
    assert "512" in overflow.value.message and "513" in overflow.value.message
    with pytest.raises(openai.BadRequestError) as tools:
        client.chat.completions.create(
            model=MODEL,
            messages=MESSAGES,
            tools=[{"type": "function", "function": {"name": "f"}}],
        )
    assert tools.value.param == "tools" and tools.value.code == "unsupported_parameter"
    with pytest.raises(openai.BadRequestError) as streamed:
        client.completions.create(model=MODEL, prompt="x", max_tokens=512, stream=True)
    assert streamed.value.code == "context_length_exceeded"
