"""llama.cpp in this process, through xllamacpp's server object: ids in, greedy text or ids out."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

_PACKAGES = ("gguf", "xllamacpp")


def missing() -> str | None:
    """Why llama.cpp cannot take part, in one line; None where it can."""
    absent = [package for package in _PACKAGES if find_spec(package) is None]
    if not absent:
        return None
    return (
        f"llama.cpp is left out: {' and '.join(absent)} not installed, "
        'get them with pip install -c constraints.txt -e ".[llama-cpp]"'
    )


class LlamaCpp:
    """One loaded GGUF file on one thread, one request at a time.

    dtype float32 computes everything in float32: keys and values too, and no flash attention,
    whose kernel rounds to 16 bits. float16 leaves both at llama.cpp's own choice.
    """

    name = "llama_cpp"

    def __init__(self, file: Path, dtype: torch.dtype, max_tokens: int) -> None:
        import xllamacpp

        options: Any = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx = max_tokens
        options.n_parallel = 1
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.n_gpu_layers = 0
        options.warmup = False
        options.fit_params = False
        options.verbosity = 0
        if dtype == torch.float32:
            options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
            options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server = xllamacpp.Server(options)
        self.fastest_own_tokens_per_second = 0.0

    def complete(self, prompt: list[int], new_tokens: int) -> str:
        """The new text, which is what its users get; ids cost extra, see :meth:`tokens`.

        Raises ValueError where llama.cpp did less or more than asked for.
        """
        answer = self._request(prompt, new_tokens)
        timings = answer["timings"]
        if timings["predicted_n"] != new_tokens or timings["prompt_n"] != len(prompt):
            raise ValueError(f"llama.cpp did other work than asked for: {timings}")
        if new_tokens > 1:
            own = float(timings["predicted_per_second"])
            self.fastest_own_tokens_per_second = max(self.fastest_own_tokens_per_second, own)
        return str(answer["choices"][0]["text"])

    def tokens(self, prompt: list[int], new_tokens: int) -> list[int]:
        """The new ids, up to the first character that is split over several tokens.

        llama.cpp tells ids only with log-probabilities, takes time for those, and reports a split
        character once, with the id of its last part but the bytes of all.
        """
        answer = self._request(prompt, new_tokens, logprobs=1)
        ids = []
        for token in answer["choices"][0]["logprobs"]["content"]:
            if token["bytes"] != token["top_logprobs"][0]["bytes"]:
                break
            ids.append(int(token["id"]))
        return ids

    def _request(self, prompt: list[int], new_tokens: int, **more: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._server.handle_completions(
            {
                "prompt": prompt,
                "max_tokens": new_tokens,
                "temperature": 0,
                "ignore_eos": True,
                "cache_prompt": False,
                **more,
            }
        )
        if "choices" not in answer:
            raise ValueError(f"llama.cpp refused the request: {answer}")
        return answer
