"""The bodies of requests, as the OpenAI API reference describes them.

Three kinds of field beside the supported ones. A field that cannot change the answer is accepted
and ignored. A field that would change it is refused, unless its value asks for nothing. Any other
name is refused too: a misspelt ``max_token`` must not pass silently.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from slmlab.serving.request import MOST_LOGPROBS

MOST_CHOICES = 128
MOST_STOPS = 4
LONGEST_STOP = 1000  # characters; every step compares the end of the text with each prefix of it
_MOST_TOKENS = 2**31 - 1


def _fault(kind: str, message: str) -> PydanticCustomError:
    return PydanticCustomError(kind, message)  # type: ignore[arg-type]


def _only(*neutral: Any) -> AfterValidator:
    """Refuse a field that this server does not act on, unless it is absent, null or ``neutral``."""

    def check(value: Any) -> Any:
        if value is None or any(type(value) is type(n) and value == n for n in neutral):
            return value
        accepted = " or ".join(repr(n) for n in neutral)
        hint = f", except as {accepted}" if accepted else ""
        raise _fault("unsupported", f"this server does not support this field{hint}: leave it out")

    return AfterValidator(check)


def _prompt(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value:
        if all(isinstance(item, str) for item in value) or _are_ids(value):
            return value
        if all(isinstance(item, list) and item and _are_ids(item) for item in value):
            return value
    raise _fault(
        "prompt_type",
        "must be a text, a list of texts, a list of token ids, or a list of lists of token ids, "
        "none of them empty",
    )


def _are_ids(items: list[Any]) -> bool:
    return all(type(item) is int for item in items)


def _content(value: Any) -> Any:
    """One text out of a text or of parts of the type text."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list) or not value:
        raise _fault("content_type", "must be a text, or a list of parts of the type text")
    for part in value:
        if not isinstance(part, dict) or part.get("type") != "text":
            raise _fault("content_type", "only parts of the type text are supported")
        if not isinstance(part.get("text"), str):
            raise _fault("content_type", "a part of the type text needs a text")
    return "".join(part["text"] for part in value)


def _stop(value: Any) -> Any:
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise _fault("stop_type", "must be a text or a list of texts")
    if len(texts) > MOST_STOPS:
        raise _fault("too_long", f"holds {len(texts)} texts; at most {MOST_STOPS} are supported")
    if not all(1 <= len(text) <= LONGEST_STOP for text in texts):
        raise _fault("too_long", f"each text must have 1 to {LONGEST_STOP} characters")
    return texts


Penalty = Annotated[Annotated[float, Field(ge=-2, le=2)] | None, _only(0.0)]
Ignored = Any


class _Body(BaseModel):
    """Strict: a number in quotes is no number, and true is not 1."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class StreamOptions(_Body):
    include_usage: bool | None = None
    include_obfuscation: Ignored = None


class _Sampling(_Body):
    """What both endpoints share. ``top_k`` is no field of OpenAI's; other local servers have it."""

    model: str
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    top_k: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES)] | None = None
    stop: Annotated[list[str] | None, BeforeValidator(lambda v: v if v is None else _stop(v))] = (
        None
    )
    seed: Annotated[int, Field(ge=-(2**63), le=2**63 - 1)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logit_bias: Annotated[Any, _only({})] = None
    user: Ignored = None

    @field_validator("stream_options")
    @classmethod
    def _only_with_stream(cls, value: Any, info: ValidationInfo) -> Any:
        if value is not None and not info.data.get("stream"):
            raise _fault("conflict", "is only allowed where stream is true")
        return value

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and bool(self.stream_options.include_usage)


class CompletionRequest(_Sampling):
    """POST /v1/completions."""

    prompt: Annotated[Any, AfterValidator(_prompt)]
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None
    echo: Annotated[bool | None, _only(False)] = None
    suffix: Annotated[str | None, _only("")] = None
    best_of: int | None = None

    @field_validator("best_of")
    @classmethod
    def _same_as_n(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and value != (info.data.get("n") or 1):
            raise _fault("unsupported", "choosing among more than n is not supported: leave it out")
        return value

    @property
    def prompts(self) -> list[str | list[int]]:
        """Each of them; one list of ids is one prompt."""
        several = isinstance(self.prompt, list) and not _are_ids(self.prompt)
        return self.prompt if several else [self.prompt]

    @property
    def new_tokens(self) -> int | None:
        return self.max_tokens

    @property
    def limit_field(self) -> str:
        return "max_tokens"

    @property
    def alternatives(self) -> int | None:
        """``logprobs`` of ``Engine.submit``."""
        return self.logprobs


class Message(_Body):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, BeforeValidator(_content)]
    name: Ignored = None
    annotations: Ignored = None
    refusal: Annotated[Any, _only()] = None
    audio: Annotated[Any, _only()] = None
    tool_calls: Annotated[Any, _only([])] = None
    function_call: Annotated[Any, _only()] = None

    def for_template(self) -> dict[str, str]:
        """Chat templates know the developer's message by its older name."""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": self.content}


class ChatRequest(_Sampling):
    """POST /v1/chat/completions."""

    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS)] | None = None

    tools: Annotated[Any, _only([])] = None
    tool_choice: Annotated[Any, _only("none", "auto")] = None
    functions: Annotated[Any, _only([])] = None
    function_call: Annotated[Any, _only("none", "auto")] = None
    response_format: Annotated[Any, _only({"type": "text"})] = None
    modalities: Annotated[Any, _only(["text"])] = None
    audio: Annotated[Any, _only()] = None
    moderation: Annotated[Any, _only()] = None
    prediction: Annotated[Any, _only()] = None
    reasoning_effort: Annotated[Any, _only("none")] = None
    verbosity: Annotated[Any, _only()] = None
    web_search_options: Annotated[Any, _only()] = None

    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None

    @field_validator("max_tokens")
    @classmethod
    def _one_limit(cls, value: int | None, info: ValidationInfo) -> int | None:
        other = info.data.get("max_completion_tokens")
        if value is not None and other is not None and value != other:
            raise _fault(
                "conflict", f"differs from max_completion_tokens={other}: give one of them"
            )
        return value

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, value: int | None, info: ValidationInfo) -> int | None:
        if value is not None and not info.data.get("logprobs"):
            raise _fault("conflict", "is only allowed where logprobs is true")
        return value

    @property
    def new_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def limit_field(self) -> str:
        return "max_completion_tokens" if self.max_completion_tokens else "max_tokens"

    @property
    def alternatives(self) -> int | None:
        """``logprobs`` of ``Engine.submit``."""
        return (self.top_logprobs or 0) if self.logprobs else None
