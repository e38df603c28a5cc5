"""llama.cpp with a GGUF draft: its own speculation on the same pair, on one thread."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from benchmarks._gguf import write_gguf
from benchmarks._llama_cpp import LlamaCpp, missing
from benchmarks._serving_trace import Asked
from benchmarks._speculative_ways import Answer, Way
from slmlab.models import model_directory


class LlamaDraft(LlamaCpp):
    """Target and draft in one server, float32 throughout; at most ``draft_tokens`` a round.

    Attributes:
        drafted, accepted: tokens, over all requests.
    """

    def __init__(self, file: Path, draft: Path, draft_tokens: int, max_tokens: int) -> None:
        import xllamacpp

        options: Any = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel = max_tokens, 1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.n_gpu_layers = 0
        options.warmup = options.fit_params = False
        options.verbosity = 0
        options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        speculative = options.speculative
        kinds = xllamacpp.common_speculative_type
        speculative.types = [kinds.COMMON_SPECULATIVE_TYPE_DRAFT_SIMPLE]
        ours = speculative.draft
        ours.mparams.path = str(draft)
        ours.n_max = draft_tokens
        ours.n_gpu_layers = 0
        ours.cpuparams.n_threads = ours.cpuparams_batch.n_threads = 1
        ours.cache_type_k = ours.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        self._server = xllamacpp.Server(options)
        self.fastest_own_tokens_per_second = 0.0
        self.drafted = self.accepted = 0

    def _request(self, prompt: list[int], new_tokens: int, **more: int) -> dict[str, Any]:
        answer = super()._request(prompt, new_tokens, **more)
        self.drafted += int(answer["timings"].get("draft_n", 0))
        self.accepted += int(answer["timings"].get("draft_n_accepted", 0))
        return answer


class LlamaWay:
    """A llama.cpp engine among the ways; it gives text, since ids cost it extra time."""

    def __init__(self, name: str, engine: LlamaCpp) -> None:
        self.name, self.engine = name, engine

    def run(self, asked: Asked, temperature: float, seed: int) -> Answer:
        if temperature:
            raise ValueError("temperature: llama.cpp takes part in greedy races only")
        return Answer(text=self.engine.complete(list(asked.prompt), asked.new_tokens))


def llama_ways(scratch: Path, draft_tokens: int, max_tokens: int) -> list[Way]:
    """Plain and speculative llama.cpp; none where it is not installed."""
    if missing():
        return []
    files = {name: scratch / f"{name}.gguf" for name in ("tiny", "tiny-draft")}
    for name, file in files.items():
        write_gguf(model_directory(name), file, torch.float32)
    plain = LlamaCpp(files["tiny"], torch.float32, max_tokens)
    pair = LlamaDraft(files["tiny"], files["tiny-draft"], draft_tokens, max_tokens)
    return [LlamaWay("llama.cpp", plain), LlamaWay(f"llama.cpp draft {draft_tokens}", pair)]
