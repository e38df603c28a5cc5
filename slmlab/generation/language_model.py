"""A model together with its tokenizer: what ``slmlab.load`` returns."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from slmlab.generation.loop import generate_tokens
from slmlab.generation.sampling import check_seed
from slmlab.generation.text_stream import TextStream
from slmlab.models import Decoder, model_directory
from slmlab.models.loading import load_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


@dataclass(frozen=True)
class LanguageModel:
    """A decoder and the tokenizer it was trained with."""

    model: Decoder
    tokenizer: PreTrainedTokenizerFast

    def generate(
        self,
        prompt: str,
        max_new_tokens: int = 64,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stream: Callable[[str], object] | None = None,
    ) -> str:
        """Continue ``prompt`` and return the continuation only.

        Args:
            max_new_tokens: upper bound; an end-of-text token stops earlier.
            temperature: 0 is greedy; above 0 samples, filtered by ``top_k`` and ``top_p``.
            seed: makes sampling repeatable; None draws a fresh one.
            stream: called with each new piece of text as soon as it is whole, for example
                ``lambda piece: print(piece, end="")``.

        Raises:
            ValueError, TypeError: an empty prompt, impossible settings, too many tokens, logits
                that are NaN or infinite.
        """
        ids = self.encode(prompt)
        if stream is not None and not callable(stream):
            raise TypeError("stream must be a function that takes a str, or None")
        generator = torch.Generator(device=self.model.device)
        if seed is None:
            generator.seed()
        else:
            check_seed(seed)
            generator.manual_seed(seed)
        tokens = generate_tokens(
            self.model,
            ids,
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            generator=generator,
            stop_ids=self.model.config.eos_token_ids,
        )
        if stream is None:
            return self._decode(list(tokens))
        text = TextStream(self.tokenizer)
        produced: list[int] = []
        for token in tokens:
            produced.append(token)
            if piece := text.push(token):
                stream(piece)
        if rest := text.finish():
            stream(rest)
        return self._decode(produced)

    def encode(self, prompt: str) -> list[int]:
        """The prompt's token ids.

        Raises:
            TypeError: no str. ValueError: half a surrogate pair, which no tokenizer takes.
        """
        if not isinstance(prompt, str):
            raise TypeError(f"prompt must be a str, not {type(prompt).__name__}")
        try:
            prompt.encode("utf-8")
        except UnicodeEncodeError as error:
            raise ValueError(
                f"prompt holds half a surrogate pair at character {error.start}, which is no text: "
                "remove it, or read the text as UTF-8"
            ) from None
        return list(self.tokenizer.encode(prompt))

    def _decode(self, tokens: list[int]) -> str:
        return str(
            self.tokenizer.decode(
                tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        )


def load(
    dir_or_name: str | Path | None = None,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> LanguageModel:
    """Load a model and its tokenizer.

    Args:
        dir_or_name: "tiny" (embedded teacher), "tiny-draft", a directory in Hugging Face
            layout, or a hub id. None takes the environment variable SLMLAB_MODEL, else "tiny":
            lessons call ``load()``, so that they run on another model unchanged.

    Raises:
        ValueError: nothing of that name, files that are missing, truncated or do not fit, a
            checkpoint that is already quantised, a dtype or device that cannot be used here.
        TypeError: an argument of the wrong type.
    """
    if dir_or_name is None:
        dir_or_name = os.environ.get("SLMLAB_MODEL") or "tiny"
    directory = model_directory(dir_or_name)
    model = load_decoder(directory, dtype=dtype, device=device)
    return LanguageModel(model, _load_tokenizer(directory))


def _load_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    if not (directory / "tokenizer.json").is_file():
        raise ValueError(
            f"{directory} has no tokenizer.json: save the model's fast tokenizer beside it"
        )
    try:
        # False, not the default: by default transformers asks at the prompt whether to run code
        # that the folder brings along.
        tokenizer = AutoTokenizer.from_pretrained(directory, use_fast=True, trust_remote_code=False)
    except Exception as error:  # tokenizers raises bare Exceptions on malformed files
        raise ValueError(f"{directory}/tokenizer.json cannot be read ({error})") from error
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise ValueError(f"{directory}: no fast tokenizer for {type(tokenizer).__name__}")
    return tokenizer
