"""The serving engine: many requests through one model, one forward pass a step."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any

import torch
from tqdm.auto import tqdm

from slmlab.generation import LanguageModel
from slmlab.generation.loop import check_prompt_ids
from slmlab.generation.text_stream import TextStream
from slmlab.kv import BlockPool, PagedBatch, PagedCache
from slmlab.models.fields import check_whole
from slmlab.serving.request import Completion, FinishReason, Output, Request, SamplingParams, State
from slmlab.serving.sampler import sample_batch, token_logprob
from slmlab.serving.scheduler import Scheduled, Scheduler
from slmlab.serving.stats import Counters


class QueueFull(RuntimeError):
    """More requests wait than the engine was told to keep: try again later."""


class Engine:
    """Continuous batching over a pool of KV blocks.

    Args:
        lm: what ``slmlab.load`` returns. Its float32 weights are packed for small batches, which
            takes as many bytes again (``Decoder.pack``).
        num_blocks, block_size: of the KV pool, all requests together.
        max_batch: requests that run at the same time.
        token_budget: tokens that one step computes at most; at least ``max_batch``, so that every
            running request can decode.
        max_waiting: requests that may wait, at least 1: one waits from its submission to the next
            step; None for any number.
        prefix_sharing: let requests with the same beginning share its blocks.

    Raises:
        ValueError, TypeError: a size below 1, a token_budget below max_batch, no LanguageModel.
    """

    def __init__(
        self,
        lm: LanguageModel,
        num_blocks: int = 64,
        block_size: int = 16,
        max_batch: int = 8,
        token_budget: int = 256,
        *,
        max_waiting: int | None = None,
        prefix_sharing: bool = True,
    ) -> None:
        if not isinstance(lm, LanguageModel):
            raise TypeError(f"lm must be what slmlab.load returns, not {type(lm).__name__}")
        check_whole("max_batch", max_batch)
        check_whole("token_budget", token_budget)
        if token_budget < max_batch:
            raise ValueError(
                f"token_budget={token_budget} must be at least max_batch={max_batch}: each running "
                "request decodes one token a step"
            )
        if max_waiting is not None:
            check_whole("max_waiting", max_waiting)
        self.lm = lm
        self.model = lm.model.pack()
        self.pool = BlockPool(
            self.model.config,
            num_blocks=num_blocks,
            block_size=block_size,
            dtype=self.model.dtype,
            device=self.model.device,
        )
        self.max_waiting = max_waiting
        self.prefix_sharing = prefix_sharing
        self._scheduler = Scheduler(self.pool, max_batch, token_budget)
        self._requests: dict[int, Request] = {}  # waiting and running
        self._results: dict[int, Completion] = {}
        self._ids = itertools.count()
        self._counters = Counters()

    def submit(
        self,
        prompt: str | Sequence[int],
        *,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] | None = None,
        logprobs: int | None = None,
    ) -> int:
        """Queue a request and return its id. Nothing is computed before the next ``step``.

        Args:
            prompt: text, or token ids.
            stop: texts that end the request; see ``SamplingParams`` for the other settings.

        Raises:
            ValueError, TypeError: settings out of range, an empty prompt, an id outside the
                vocabulary, more tokens than the model has positions or the pool could ever hold.
            QueueFull: ``max_waiting`` requests wait already.
        """
        if stop is not None and not isinstance(stop, str | Sequence):
            raise TypeError(f"stop must be a str or a list of them, not {stop!r}")
        if not isinstance(prompt, str | list | tuple):
            raise TypeError(
                f"prompt must be a str or a list of token ids, not {type(prompt).__name__}"
            )
        stop = (stop,) if isinstance(stop, str) else tuple(stop or ())
        params = SamplingParams(max_new_tokens, temperature, top_k, top_p, seed, stop, logprobs)
        ids = self.lm.encode(prompt) if isinstance(prompt, str) else list(prompt)
        check_prompt_ids(self.model, ids, max_new_tokens)
        # The last token that a request generates is never an input: its keys are not stored.
        stored, slots = len(ids) + max_new_tokens - 1, self.pool.num_blocks * self.pool.block_size
        if stored > slots:
            raise ValueError(
                f"prompt of {len(ids)} tokens + max_new_tokens={max_new_tokens} store {stored} "
                f"tokens; the pool holds {slots} ({self.pool.num_blocks} blocks of "
                f"{self.pool.block_size}): ask for at most {max(slots + 1 - len(ids), 0)} new "
                "tokens or make num_blocks larger"
            )
        if self._full:
            raise QueueFull(f"{self.max_waiting} requests wait already: try again later")
        generator = torch.Generator(device=self.model.device)
        generator.seed() if seed is None else generator.manual_seed(seed)
        request = Request(
            id=next(self._ids),
            prompt=tuple(ids),
            params=params,
            cache=PagedCache(self.pool),
            text=TextStream(self.lm.tokenizer, stop),
            generator=generator,
            submitted=time.perf_counter(),
        )
        self._requests[request.id] = request
        self._scheduler.add(request)
        self._counters.submitted += 1
        return request.id

    @torch.inference_mode()
    def step(self) -> list[Output]:
        """Run one forward pass over the scheduled tokens; what it gave, a request at a time.

        An empty list means that no request gained a token: none is left, or the pass computed a
        part of a long prompt.

        Raises:
            OutOfBlocks: nothing runs, and blocks held from outside the engine keep the first
                request out.
        """
        before = {request.id: request.preemptions for request in self._scheduler.running}
        plan = self._scheduler.schedule()
        for request_id, preemptions in before.items():
            self._counters.preemptions += self._requests[request_id].preemptions - preemptions
        if not plan:
            return []
        logits = self._forward(plan)
        ready = [s.request for s in plan if s.request.pending == 0]
        outputs = []
        for row, (request, token) in enumerate(zip(ready, sample_batch(logits, ready))):
            outputs.append(self._advance(request, token, logits[row]))
        return outputs

    def _forward(self, plan: list[Scheduled]) -> torch.Tensor:
        """Logits (ready, V) of the requests whose last known token this pass computes."""
        now = time.perf_counter()
        ids: list[int] = []
        for scheduled in plan:
            request, start = scheduled.request, scheduled.request.cache.length
            ids += request.tokens[start : start + scheduled.count]
            if request.admitted is None:
                request.admitted = now
                self._counters.queue_time.append(now - request.submitted)
                self._counters.prompt_tokens += len(request.prompt)
                self._counters.cached_prompt_tokens += request.cached_prompt_tokens
        batch = PagedBatch([s.request.cache for s in plan], [s.count for s in plan])
        row = torch.tensor([ids], device=self.model.device)
        hidden = self.model.hidden(row, batch, positions=batch.positions)[0]  # (total, D)
        if self.prefix_sharing:
            for scheduled in plan:
                scheduled.request.cache.record(scheduled.request.tokens)
        self._counters.steps += 1
        self._counters.computed_tokens += len(ids)
        self._counters.count_memory(self._scheduler.running)
        ready = [i for i, s in enumerate(plan) if s.request.pending == 0]
        return self.model.lm_head(hidden[batch.last[ready]])

    def _advance(self, request: Request, token: int | None, logits: torch.Tensor) -> Output:
        """Take the new token into the request, and end it where it ends."""
        now = time.perf_counter()
        if token is None:
            return self._finish(request, "error", None, request.text.finish())
        if token in self.model.config.eos_token_ids:
            return self._finish(request, "stop", None, request.text.finish())
        logprob = None
        if request.params.logprobs is not None:
            logprob = token_logprob(logits, token, request.params.logprobs)
            request.logprobs.append(logprob)
        request.tokens.append(token)
        self._counters.generated_tokens += 1
        if request.first_token is None:
            request.first_token = now
            self._counters.ttft.append(now - request.submitted)
        request.last_token = now
        piece = request.text.push(token)
        if request.text.stopped:
            return self._finish(request, "stop", token, piece, logprob)
        if len(request.new_tokens) >= request.params.max_new_tokens:
            piece += request.text.finish()
            reason: FinishReason = "stop" if request.text.stopped else "length"
            return self._finish(request, reason, token, piece, logprob)
        return Output(request.id, token, piece, None, logprob)

    def _finish(
        self,
        request: Request,
        reason: FinishReason,
        token: int | None,
        piece: str,
        logprob: Any = None,
    ) -> Output:
        new = request.new_tokens
        if len(new) > 1 and request.first_token is not None and request.last_token is not None:
            seconds = request.last_token - request.first_token
            self._counters.time_per_output_token.append(seconds / (len(new) - 1))
        self._counters.finished += reason != "cancelled"
        self._counters.cancelled += reason == "cancelled"
        self._results[request.id] = request.completion(reason)
        self._scheduler.remove(request)
        del self._requests[request.id]
        return Output(request.id, token, piece, reason, logprob)

    def cancel(self, request_id: int) -> Output:
        """End a request now; its blocks are free when this returns.

        Raises:
            ValueError: no request of that id waits or runs.
        """
        request = self._requests.get(request_id) if isinstance(request_id, int) else None
        if request is None:
            raise ValueError(
                f"request id {request_id!r} is unknown or has ended: waiting and running are "
                f"{sorted(self._requests) or 'none'}"
            )
        return self._finish(request, "cancelled", None, request.text.finish())

    @property
    def _full(self) -> bool:
        return self.max_waiting is not None and len(self._scheduler.waiting) >= self.max_waiting

    @property
    def idle(self) -> bool:
        """Nothing waits and nothing runs."""
        return not self._requests

    def result(self, request_id: int) -> Completion:
        """Take a finished request's completion out of the engine; it is kept until then.

        Raises:
            ValueError: the id is unknown, taken already, or not finished.
        """
        if request_id not in self._results:
            why = "has not finished" if request_id in self._requests else "is unknown or was taken"
            raise ValueError(f"request id {request_id!r} {why}: finished are {list(self._results)}")
        return self._results.pop(request_id)

    def run(self, progress: bool = False) -> dict[int, Completion]:
        """Step until nothing is left; take out everything that has finished, by id.

        Interrupting it loses nothing: call ``run`` again to go on.
        """
        with tqdm(total=len(self._requests), unit="request", disable=not progress) as bar:
            while not self.idle:
                bar.update(sum(o.finish_reason is not None for o in self.step()))
        finished, self._results = self._results, {}
        return finished

    def generate(
        self, prompts: Sequence[str | Sequence[int]], max_new_tokens: int = 32, **settings: Any
    ) -> list[list[int]]:
        """Greedy continuations, new ids only, in the order of ``prompts``.

        Requests that were submitted before run along and keep their results.

        Raises:
            ValueError, TypeError: as ``submit``; logits that are NaN or infinite. Nothing of this
                call is then left in the engine.
        """
        if isinstance(prompts, str) or not isinstance(prompts, Sequence):
            raise TypeError("prompts must be a list of texts or of lists of token ids")
        ids: list[int] = []
        try:
            for prompt in prompts:
                while self._full:
                    self.step()
                ids.append(self.submit(prompt, max_new_tokens=max_new_tokens, **settings))
            while any(i in self._requests for i in ids):
                self.step()
            done = [self.result(i) for i in ids]
        except BaseException:
            for i in ids:
                if i in self._requests:
                    self.cancel(i)
                self._results.pop(i, None)
            raise
        if any(completion.finish_reason == "error" for completion in done):
            raise ValueError(
                "the model's logits are NaN or infinite: its weights are damaged, or its dtype "
                "overflows; load it again with dtype=torch.float32"
            )
        return [completion.tokens for completion in done]

    @property
    def stats(self) -> dict[str, Any]:
        """Counts since the start, occupancy now, and times in seconds (p50, p99 of the newest 1,000).

        ``waste``: of all reserved slots, summed over the steps, the share that held no token.
        ``prefix_hit_rate``: of all prompt tokens admitted, the share taken from shared blocks.
        """
        running = [r for r in self._requests.values() if r.state is State.RUNNING]
        return self._counters.as_dict(self.pool, len(running), len(self._requests) - len(running))
