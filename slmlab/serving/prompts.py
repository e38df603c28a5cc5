"""From the texts of a body to token ids."""

from __future__ import annotations

import asyncio

from jinja2.exceptions import TemplateError

from slmlab.generation import LanguageModel
from slmlab.serving.errors import ApiError
from slmlab.serving.schemas import ChatRequest, CompletionRequest


async def completion_ids(lm: LanguageModel, body: CompletionRequest) -> list[list[int]]:
    """One list of ids a prompt. Encoding runs in a thread: a long text takes a while."""

    def encode() -> list[list[int]]:
        return [lm.encode(p) if isinstance(p, str) else p for p in body.prompts]

    return await asyncio.to_thread(encode)


async def chat_ids(lm: LanguageModel, body: ChatRequest, model_name: str) -> list[list[int]]:
    """The conversation as the model's own template writes it, ready for the assistant's turn.

    Raises:
        ApiError: 400, the model has no template, or its template refuses these messages.
    """
    if not lm.tokenizer.chat_template:
        raise ApiError(
            400,
            f"The model '{model_name}' has no chat template: use /v1/completions.",
            param="messages",
            code="no_chat_template",
        )
    messages = [message.for_template() for message in body.messages]

    def encode() -> list[int]:
        ids = lm.tokenizer.apply_chat_template(
            messages,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=False,
            # "<|assistant|>" in a message is text and opens no turn. (A transformers that does not
            # know this setting yet hands it to the template, which ignores it.)
            sanitize_control_tokens=True,
        )
        return list(ids)

    try:
        return [await asyncio.to_thread(encode)]
    except (TemplateError, ValueError, TypeError) as error:
        raise ApiError(
            400,
            f"The chat template of '{model_name}' refuses these messages: {error}",
            param="messages",
            code="invalid_value",
        ) from None
