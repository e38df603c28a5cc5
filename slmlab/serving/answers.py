"""What the two endpoints answer, whole and in chunks, as the OpenAI API reference describes it."""

from __future__ import annotations

import codecs
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from slmlab.serving.request import Completion, Output, TokenLogprob
from slmlab.serving.token_bytes import TokenBytes

_LOWEST = -9999.0  # OpenAI's word for a probability of zero; JSON has no infinity


def usage(completions: Sequence[Completion], prompts: Sequence[int]) -> dict[str, Any]:
    """Token counts of a call. ``prompts``: the choices that are the first of their prompt.

    A prompt with several choices is counted once.
    """
    prompt = sum(completions[i].prompt_tokens for i in prompts)
    generated = sum(len(completion.tokens) for completion in completions)
    return {
        "prompt_tokens": prompt,
        "completion_tokens": generated,
        "total_tokens": prompt + generated,
        "prompt_tokens_details": {
            "cached_tokens": sum(completions[i].cached_prompt_tokens for i in prompts)
        },
    }


def _finite(logprob: float) -> float:
    return max(logprob, _LOWEST)


class Answer(ABC):
    """The shapes of one endpoint, for one call."""

    prefix: str
    whole_object: str
    chunk_object: str

    def __init__(self, model: str, tokens: TokenBytes) -> None:
        self.tokens = tokens
        self.head = {
            "id": f"{self.prefix}-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": model,
        }

    def whole(self, completions: Sequence[Completion], usage: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call without ``stream``."""
        choices = [self.choice(i, completion) for i, completion in enumerate(completions)]
        return {**self.head, "object": self.whole_object, "choices": choices, "usage": usage}

    def chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        """One event of a stream; the one with the usage has no choices."""
        return {**self.head, "object": self.chunk_object, "choices": choices}

    @abstractmethod
    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        """One entry of ``choices`` of a whole answer."""

    @abstractmethod
    def opening(self, index: int) -> dict[str, Any] | None:
        """The entry that opens a choice's stream, if there is one."""

    @abstractmethod
    def piece(self, index: int, output: Output) -> dict[str, Any]:
        """The entry with new text."""

    @abstractmethod
    def ending(self, index: int, reason: str) -> dict[str, Any]:
        """The entry with the reason of the end."""


class CompletionAnswer(Answer):
    """POST /v1/completions."""

    prefix, whole_object, chunk_object = "cmpl", "text_completion", "text_completion"

    def __init__(self, model: str, tokens: TokenBytes) -> None:
        super().__init__(model, tokens)
        self._offsets: dict[int, _Offset] = {}

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        logprobs = completion.logprobs
        return {
            "index": index,
            "text": completion.text,
            "logprobs": None if logprobs is None else self._logprobs(_Offset(), logprobs),
            "finish_reason": completion.finish_reason,
        }

    def opening(self, index: int) -> None:
        return None

    def piece(self, index: int, output: Output) -> dict[str, Any]:
        offset = self._offsets.setdefault(index, _Offset())
        logprob = output.logprob
        return {
            "index": index,
            "text": output.text,
            "logprobs": None if logprob is None else self._logprobs(offset, [logprob]),
            "finish_reason": None,
        }

    def ending(self, index: int, reason: str) -> dict[str, Any]:
        return {"index": index, "text": "", "logprobs": None, "finish_reason": reason}

    def _logprobs(self, offset: _Offset, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        offsets = []
        for item in items:
            offsets.append(offset.characters)
            if not self.tokens.is_special(item.token):
                offset.add(self.tokens.bytes_of(item.token))
        return {
            "tokens": [self._name(item.token) for item in items],
            "token_logprobs": [_finite(item.logprob) for item in items],
            "top_logprobs": [
                # The chosen token is always among them, as OpenAI's are: up to logprobs + 1.
                {self._name(t): _finite(p) for t, p in (*item.top, (item.token, item.logprob))}
                for item in items
            ],
            "text_offset": offsets,
        }

    def _name(self, token: int) -> str:
        """A key for a token: two parts of a character must not share one."""
        raw = self.tokens.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)


class _Offset:
    """Where the next token begins in the text, in characters."""

    def __init__(self) -> None:
        self.characters = 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def add(self, raw: bytes) -> None:
        self.characters += len(self._decoder.decode(raw))


class ChatAnswer(Answer):
    """POST /v1/chat/completions."""

    prefix, whole_object, chunk_object = "chatcmpl", "chat.completion", "chat.completion.chunk"

    def choice(self, index: int, completion: Completion) -> dict[str, Any]:
        logprobs = completion.logprobs
        return {
            "index": index,
            "message": {"role": "assistant", "content": completion.text, "refusal": None},
            "logprobs": None if logprobs is None else self._logprobs(logprobs),
            "finish_reason": completion.finish_reason,
        }

    def opening(self, index: int) -> dict[str, Any]:
        return self._delta(index, {"role": "assistant", "content": "", "refusal": None})

    def piece(self, index: int, output: Output) -> dict[str, Any]:
        logprobs = None if output.logprob is None else self._logprobs([output.logprob])
        return self._delta(index, {"content": output.text}, logprobs)

    def ending(self, index: int, reason: str) -> dict[str, Any]:
        return {**self._delta(index, {}), "finish_reason": reason}

    def _delta(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        return {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": None}

    def _logprobs(self, items: Sequence[TokenLogprob]) -> dict[str, Any]:
        content = [
            {
                **self._token(item.token, item.logprob),
                "top_logprobs": [self._token(token, logprob) for token, logprob in item.top],
            }
            for item in items
        ]
        return {"content": content, "refusal": None}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        return {
            "token": self.tokens.text_of(token),
            "logprob": _finite(logprob),
            "bytes": list(self.tokens.bytes_of(token)),
        }
