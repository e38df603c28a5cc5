"""Other engines that answer a trace: transformers' two ways of batching, llama.cpp's server."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, ContinuousBatchingConfig, GenerationConfig

from benchmarks._serving_engines import BLOCK_SIZE, TOKEN_BUDGET, Run, Way, blocks_for
from benchmarks._serving_trace import Asked

SLOTS = 8  # llama.cpp's sequences in parallel, whatever the clients do


def load_transformers(folder: Path) -> Any:
    """AutoModelForCausalLM in float32 that ends no answer early."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    model.generation_config.pad_token_id = 0
    return model


class StaticBatch(Way):
    """``generate`` on left-padded batches, filled in the order of the trace.

    A batch runs until its longest answer is done. What the others gained beyond their own length
    is thrown away, and nothing is given out before.
    """

    name = "transformers_static"

    def __init__(self, model: Any, at_once: int) -> None:
        self.model, self.at_once = model, at_once

    def run(self, trace: Sequence[Asked]) -> Run:
        answers = []
        for first in range(0, len(trace), self.at_once):
            batch = trace[first : first + self.at_once]
            width = max(len(asked.prompt) for asked in batch)
            padding = [width - len(asked.prompt) for asked in batch]
            output = self.model.generate(
                torch.tensor([[0] * pad + list(a.prompt) for pad, a in zip(padding, batch)]),
                attention_mask=torch.tensor([[0] * pad + [1] * (width - pad) for pad in padding]),
                max_new_tokens=max(asked.new_tokens for asked in batch),
                do_sample=False,
            )
            for row, asked in zip(output[:, width:].tolist(), batch, strict=True):
                answers.append(row[: asked.new_tokens])
        return Run(answers, None)


class GenerateBatch(Way):
    """``generate_batch``, transformers' continuous batching, with a length for each request.

    ``generate_batch`` takes one length for all, so this calls its manager as ``generate_batch``
    does. Starting and stopping it is not timed. It gets our Engine's page size, token budget and
    requests at once; without bounds it reserves nine tenths of the memory. CUDA graphs and double
    buffering need a GPU.
    """

    name = "transformers_generate_batch"

    def __init__(self, model: Any, at_once: int) -> None:
        self.model, self.at_once = model, at_once
        self._manager: Any = None

    @contextmanager
    def ready(self, trace: Sequence[Asked]) -> Iterator[None]:
        bounds = ContinuousBatchingConfig(
            page_size=BLOCK_SIZE,
            # Half as many again: it stops admitting when a fifth of them or less is free.
            num_blocks=blocks_for(trace, self.at_once) * 3 // 2 + 2,
            max_batch_tokens=TOKEN_BUDGET,
            max_requests_per_batch=self.at_once,
            use_cuda_graph=False,
            use_async_batching=False,
        )
        greedy = GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0)
        manager: AbstractContextManager[Any] = self.model.continuous_batching_context_manager(
            generation_config=greedy, continuous_batching_config=bounds, timeout=5
        )
        with manager as self._manager:
            yield
        self._manager = None

    def run(self, trace: Sequence[Asked]) -> Run:
        ids = [
            self._manager.add_request(
                list(asked.prompt), max_new_tokens=asked.new_tokens, record_timestamps=True
            )
            for asked in trace
        ]
        done: dict[str, Any] = {}
        while len(done) < len(ids):
            result = self._manager.get_result(timeout=1)
            if result is not None and result.is_finished():
                if result.error is not None:
                    raise ValueError(f"generate_batch failed on a request: {result.error}")
                done[result.request_id] = result
            elif result is None and not self._manager.is_running():
                raise ValueError("generate_batch's thread ended before its requests did")
        results = [done[i] for i in ids]
        return Run(
            [list(each.generated_tokens) for each in results],
            [each.timestamps[0] - each.created_time for each in results],
        )


class LlamaServer(Way):
    """llama.cpp's server in this process: ``at_once`` client threads, ``SLOTS`` sequences.

    float32 throughout, keys and values too, without flash attention, whose kernel rounds to 16
    bits. One context of fixed size for all sequences together (``kv_unified``).
    """

    name = "llama_cpp"

    def __init__(self, server: Any, at_once: int) -> None:
        self.server, self.at_once = server, at_once

    @staticmethod
    def serve(file: Path, slots: int) -> Any:
        """Load a GGUF file; ``slots`` tokens of context in all."""
        import xllamacpp

        options: Any = xllamacpp.CommonParams()
        options.model.path = str(file)
        options.n_ctx, options.n_parallel, options.kv_unified = slots, SLOTS, True
        options.cpuparams.n_threads = options.cpuparams_batch.n_threads = 1
        options.n_gpu_layers = 0
        options.warmup = options.fit_params = False
        options.verbosity = 0
        options.cache_type_k = options.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        options.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
        return xllamacpp.Server(options)

    def run(self, trace: Sequence[Asked]) -> Run:
        """A first token's time is the answer's, less what the server spent on generating."""
        start = time.perf_counter()

        def ask(asked: Asked) -> float:
            answer: dict[str, Any] = self.server.handle_completions(
                {
                    "prompt": list(asked.prompt),
                    "max_tokens": asked.new_tokens,
                    "temperature": 0,
                    "ignore_eos": True,
                    "cache_prompt": False,
                }
            )
            done = time.perf_counter() - start
            if "timings" not in answer:
                raise ValueError(f"llama.cpp refused the request: {answer}")
            timings = answer["timings"]
            if (timings["predicted_n"], timings["prompt_n"]) != (
                asked.new_tokens,
                len(asked.prompt),
            ):
                raise ValueError(f"llama.cpp did other work than asked for: {timings}")
            return done - float(timings["predicted_ms"]) / 1e3

        with ThreadPoolExecutor(self.at_once) as clients:
            return Run(None, list(clients.map(ask, trace)))
