"""slmlab and transformers as a user calls them: ids in, greedy ids out, no token ends the run."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import torch
from transformers import AutoModelForCausalLM

from slmlab.generation import generate_tokens
from slmlab.models import Decoder, model_directory
from slmlab.quant import quantize_model


class Engine(Protocol):
    """Something that continues a prompt of ids by exactly ``new_tokens`` greedy tokens.

    complete: as its users call it, and what is timed. tokens: the new ids, as far as the engine
    can tell them.
    """

    name: str

    def complete(self, prompt: list[int], new_tokens: int) -> object: ...

    def tokens(self, prompt: list[int], new_tokens: int) -> list[int]: ...


class Slmlab:
    """The Decoder and the plain generation loop; with ``scheme`` its linear layers are quantised,
    with ``head_scheme`` its head too. What stays float has ``dtype``."""

    name = "slmlab"

    def __init__(
        self,
        directory: str | Path,
        dtype: torch.dtype,
        scheme: str | None = None,
        head_scheme: str | None = None,
    ) -> None:
        self.model = Decoder.from_pretrained(directory, dtype=dtype)
        if scheme is not None:
            self.model = quantize_model(self.model, scheme, head_scheme=head_scheme)

    def complete(self, prompt: list[int], new_tokens: int) -> list[int]:
        return list(generate_tokens(self.model, prompt, max_new_tokens=new_tokens))

    tokens = complete

    @torch.inference_mode()
    def next_logits(self, prompt: list[int]) -> torch.Tensor:
        """Logits (V,) after the prompt, float32."""
        logits = self.model(torch.tensor([prompt]))
        assert isinstance(logits, torch.Tensor)
        return logits[0, -1].float()


class Transformers:
    """AutoModelForCausalLM and its ``generate``."""

    name = "transformers"

    def __init__(self, directory: str | Path, dtype: torch.dtype) -> None:
        folder = model_directory(directory)
        self.model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
        self.model.generation_config.eos_token_id = None

    def complete(self, prompt: list[int], new_tokens: int) -> list[int]:
        ids = torch.tensor([prompt])
        output = self.model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=new_tokens,
            do_sample=False,
        )
        return [int(token) for token in output[0, len(prompt) :]]

    tokens = complete

    @torch.inference_mode()
    def next_logits(self, prompt: list[int]) -> torch.Tensor:
        """Logits (V,) after the prompt, float32."""
        return self.model(torch.tensor([prompt])).logits[0, -1].float()
