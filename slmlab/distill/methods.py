"""What a step learns from: one class a method, all with the same three questions.

- ``prepare``: once before the first step, may rewrite the rows (sequence-level).
- ``batch``: before each step, may rewrite the batch (on-policy).
- ``loss``: of the student's logits, with what ``target`` kept of the teacher's answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from slmlab.distill.batches import Batch, Rows, uniforms
from slmlab.distill.forward import logits_and_states, logits_of
from slmlab.distill.hidden import HiddenStateLoss
from slmlab.distill.losses import distillation_loss
from slmlab.distill.on_policy import STREAM, is_on_policy, student_sequences
from slmlab.distill.sequence import teacher_sequences
from slmlab.distill.settings import Settings
from slmlab.distill.topk import TopKLogits, top_k_logits, top_k_loss
from slmlab.models.fields import check_whole


@dataclass(frozen=True)
class Step:
    """Where a run stands: its number, and which part of the batch this process has."""

    number: int
    settings: Settings
    part: int = 0
    parts: int = 1


class Method(nn.Module):
    """Base of all methods; a module, as some have weights of their own that are trained along."""

    needs_teacher = True  # at every step
    needs_states = False  # the student's hidden states

    def describe(self) -> dict[str, Any]:
        """What a checkpoint must have in common with the run that goes on from it."""
        return {"method": type(self).__name__}

    def prepare(
        self, rows: Rows, used: Tensor, teacher: nn.Module | None, settings: Settings
    ) -> Rows:
        """The rows to learn from; ``used`` are the numbers of those that the run will meet."""
        return rows

    def batch(self, batch: Batch, student: nn.Module, step: Step) -> Batch:
        """The part of a batch to learn from."""
        return batch

    def target(self, teacher: nn.Module | None, batch: Batch, step: Step) -> Any:
        """What the loss needs of the teacher; called without gradients."""
        return None

    def loss(
        self, logits: Tensor, states: list[Tensor], target: Any, batch: Batch, settings: Settings
    ) -> Tensor:
        """Mean over the batch's counted positions; logits (B, T - 1, V)."""
        raise NotImplementedError


class Hard(Method):
    """The text's own tokens as labels: no distillation, what every method is compared with."""

    needs_teacher = False

    def loss(
        self, logits: Tensor, states: list[Tensor], target: Any, batch: Batch, settings: Settings
    ) -> Tensor:
        return hard_label_loss(logits, batch)


def hard_label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Mean cross-entropy, nats a counted token; logits (B, T - 1, V)."""
    return functional.cross_entropy(logits.flatten(0, 1).float(), batch.targets.flatten())


class Logits(Method):
    """The teacher's whole distribution at every position of the given text."""

    def target(self, teacher: nn.Module | None, batch: Batch, step: Step) -> Any:
        assert teacher is not None
        return logits_of(teacher, batch.inputs)

    def loss(
        self, logits: Tensor, states: list[Tensor], target: Any, batch: Batch, settings: Settings
    ) -> Tensor:
        at = (settings.temperature, settings.divergence, settings.beta)
        return distillation_loss(logits, target.to(logits.device), *at, mask=batch.mask)


class TopK(Method):
    """The teacher's ``k`` largest logits and the mass of the rest (`slmlab.distill.topk`).

    stored: of all rows, (N, T - 1) positions, as `top_k_logits` keeps them: then no teacher is
    asked. Without it each batch's are taken from the teacher.
    """

    def __init__(self, k: int = 32, stored: TopKLogits | None = None) -> None:
        super().__init__()
        check_whole("k", k)
        self.k, self.stored = k if stored is None else stored.k, stored
        self.needs_teacher = stored is None

    def describe(self) -> dict[str, Any]:
        return {"method": "TopK", "k": self.k}

    def prepare(
        self, rows: Rows, used: Tensor, teacher: nn.Module | None, settings: Settings
    ) -> Rows:
        if self.stored is not None:
            if self.stored.rest.shape != rows.mask.shape:
                raise ValueError(
                    f"stored covers positions {tuple(self.stored.rest.shape)}, the rows predict at "
                    f"{tuple(rows.mask.shape)}: store the logits of these rows"
                )
            if self.stored.temperature != settings.temperature:
                raise ValueError(
                    f"stored was summed at temperature {self.stored.temperature}, the run asks for "
                    f"{settings.temperature}: pass temperature={self.stored.temperature}"
                )
        return rows

    def target(self, teacher: nn.Module | None, batch: Batch, step: Step) -> Any:
        if self.stored is not None:
            return self.stored[batch.rows]
        assert teacher is not None
        logits = logits_of(teacher, batch.inputs)
        return top_k_logits(logits, min(self.k, logits.shape[-1]), step.settings.temperature)

    def loss(
        self, logits: Tensor, states: list[Tensor], target: Any, batch: Batch, settings: Settings
    ) -> Tensor:
        kept = target.to(logits.device)
        return top_k_loss(logits, kept, settings.divergence, settings.beta, batch.mask)


class Sequence(Hard):
    """Hard labels of the text that the teacher writes behind each row's first ``prompt_tokens``.

    temperature: of the teacher's text; 0 is greedy. It is written once, before the first step.
    """

    def __init__(
        self, prompt_tokens: int = 8, temperature: float = 0.0, stop_ids: Collection[int] = ()
    ) -> None:
        super().__init__()
        check_whole("prompt_tokens", prompt_tokens)
        self.prompt_tokens, self.temperature = prompt_tokens, temperature
        self.stop_ids = tuple(stop_ids)
        self.needs_teacher = True
        self._written: Rows | None = None

    def describe(self) -> dict[str, Any]:
        return {
            "method": "Sequence",
            "prompt_tokens": self.prompt_tokens,
            "temperature": self.temperature,
            "stop_ids": list(self.stop_ids),
        }

    def prepare(
        self, rows: Rows, used: Tensor, teacher: nn.Module | None, settings: Settings
    ) -> Rows:
        assert teacher is not None
        time = rows.ids.shape[1]
        if self.prompt_tokens >= time:
            raise ValueError(
                f"prompt_tokens={self.prompt_tokens} must be below the {time} tokens of a row"
            )
        prompts, new = rows.ids[used, : self.prompt_tokens], time - self.prompt_tokens
        text, mask = teacher_sequences(
            teacher, prompts, new, self.temperature, settings.seed, self.stop_ids
        )
        ids, masks = rows.ids.clone(), rows.mask.clone()
        ids[used], masks[used] = text, mask
        vocabulary = int(teacher.config.vocab_size)  # type: ignore[union-attr, arg-type]
        return Rows(ids, masks, vocabulary)


class OnPolicy(Logits):
    """A share ``lambda_share`` of the steps on text that the student samples (GKD's lambda).

    prompt_tokens: of each row, which the student continues. temperature: of its samples. The other
    steps learn from the rows as they are.
    """

    def __init__(
        self,
        lambda_share: float = 0.5,
        prompt_tokens: int = 8,
        temperature: float = 1.0,
        stop_ids: Collection[int] = (),
    ) -> None:
        super().__init__()
        if isinstance(lambda_share, bool) or not isinstance(lambda_share, int | float):
            raise TypeError(f"lambda_share must be a number, not {lambda_share!r}")
        if not 0 <= lambda_share <= 1:
            raise ValueError(f"lambda_share={lambda_share} must lie between 0 and 1")
        check_whole("prompt_tokens", prompt_tokens)
        self.lambda_share, self.prompt_tokens = lambda_share, prompt_tokens
        self.temperature, self.stop_ids = temperature, tuple(stop_ids)

    def describe(self) -> dict[str, Any]:
        return {
            "method": "OnPolicy",
            "lambda_share": self.lambda_share,
            "prompt_tokens": self.prompt_tokens,
            "temperature": self.temperature,
            "stop_ids": list(self.stop_ids),
        }

    def batch(self, batch: Batch, student: nn.Module, step: Step) -> Batch:
        seed = step.settings.seed
        if not is_on_policy(seed, step.number, self.lambda_share):
            return batch
        rows, new = step.settings.batch_size, batch.ids.shape[1] - self.prompt_tokens
        # Drawn for the whole batch: a row gets the same numbers on every number of processes.
        numbers = uniforms(seed, STREAM, step.number, rows, max(new, 0))
        here = slice(step.part * rows // step.parts, (step.part + 1) * rows // step.parts)
        return student_sequences(
            student, batch, self.prompt_tokens, numbers[here], self.temperature, self.stop_ids
        )


class Hidden(Logits):
    """Logit distillation and, times ``weight``, hidden-state matching (`slmlab.distill.hidden`).

    The projectors are trained along and are no part of the student.
    """

    needs_states = True

    def __init__(
        self,
        student_width: int,
        teacher_width: int,
        layer_map: Mapping[int, int],
        weight: float = 1.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.matching = HiddenStateLoss(student_width, teacher_width, layer_map, seed)
        self.weight = weight

    def describe(self) -> dict[str, Any]:
        mapped = [list(pair) for pair in self.matching.layer_map.items()]
        return {"method": "Hidden", "layer_map": mapped, "weight": self.weight}

    def target(self, teacher: nn.Module | None, batch: Batch, step: Step) -> Any:
        assert teacher is not None
        return logits_and_states(teacher, batch.inputs)

    def loss(
        self, logits: Tensor, states: list[Tensor], target: Any, batch: Batch, settings: Settings
    ) -> Tensor:
        theirs, teacher_states = target
        distilled = super().loss(logits, states, theirs, batch, settings)
        wanted = [state.to(logits.device) for state in teacher_states]
        return distilled + self.weight * self.matching(states, wanted, batch.mask)


METHODS: dict[str, type[Method]] = {
    "hard": Hard,
    "logits": Logits,
    "topk": TopK,
    "sequence": Sequence,
    "on_policy": OnPolicy,
}


def method_of(method: str | Method) -> Method:
    """A method by its name with its defaults, or the object itself.

    Raises ValueError for an unknown name, TypeError for something else.
    """
    if isinstance(method, Method):
        return method
    if not isinstance(method, str):
        raise TypeError(
            f"method must be one of {', '.join(METHODS)}, or an object of "
            f"slmlab.distill.methods, not {method!r}"
        )
    if method not in METHODS:
        raise ValueError(f"method={method!r} must be one of {', '.join(METHODS)}")
    return METHODS[method]()
