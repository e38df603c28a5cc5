"""One training run of the distillation study, and the folder that keeps finished ones."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from tqdm.auto import tqdm

from slmlab.distill import Distiller, Hard, Logits, Method, OnPolicy, Sequence, TopK
from slmlab.distill.batches import Rows
from slmlab.distill.pair import fingerprint
from slmlab.models import Decoder
from slmlab.training.work_folder import check_folder

# Of every row: given, and learned by no method, as sequence and on-policy text needs a beginning.
# All methods thus learn the same number of positions of the same rows.
PROMPT_TOKENS = 9
TOP_K = 32
ON_POLICY_SHARE = 0.5


@dataclass(frozen=True)
class Recipe:
    """How one method trains. temperature: of the loss, where it compares distributions.
    text_temperature: of text that a model writes (sequence: the teacher, on_policy: the student).
    """

    method: str
    learning_rate: float
    temperature: float = 1.0
    text_temperature: float = 1.0
    divergence: str = "forward_kl"
    batch_size: int = 8
    warmup_steps: int = 5

    def build(self) -> Method:
        """The method's object."""
        builders: dict[str, Callable[[], Method]] = {
            "hard": Hard,
            "logits": Logits,
            "topk": lambda: TopK(TOP_K),
            "sequence": lambda: Sequence(PROMPT_TOKENS, self.text_temperature),
            "on_policy": lambda: OnPolicy(ON_POLICY_SHARE, PROMPT_TOKENS, self.text_temperature),
        }
        return builders[self.method]()


def learned(rows: Tensor) -> Tensor:
    """(N, T) rows -> (N, T - 1) bool: the predictions of tokens behind the prompt."""
    mask = rows.new_ones(rows.shape[0], rows.shape[1] - 1).bool()
    mask[:, : PROMPT_TOKENS - 1] = False
    return mask


@dataclass
class Trained:
    """A run's cost and course. cpu_seconds: of training, the writing of text included and judging
    not. curve: (tokens, cpu_seconds, kl)."""

    steps: int
    tokens: int
    cpu_seconds: float
    curve: list[tuple[int, float, float]]


def train(
    student: Decoder,
    teacher: nn.Module,
    rows: Tensor,
    recipe: Recipe,
    *,
    steps: int,
    seed: int,
    kl: Callable[[Decoder], float] | None = None,
    start_kl: float | None = None,
    points: int = 5,
) -> Trained:
    """Train ``student`` in place.

    kl: judged about ``points`` times and at the end; start_kl: what it says before the first step,
    the same for all runs.
    """
    curve: list[tuple[int, float, float]] = []
    judging = 0.0

    def judge(model: Decoder, step: int) -> None:
        nonlocal judging
        if kl is None:
            return
        at = time.process_time()
        spent = at - begun - judging
        found = start_kl if step == 0 and start_kl is not None else kl(model)
        curve.append((distiller.history.tokens, spent, found))
        judging += time.process_time() - at

    distiller = Distiller(
        student,
        teacher,
        rows,
        learned(rows),
        method=recipe.build(),
        evaluate=judge,
        evaluate_every=-(-steps // points),
        progress=False,
        steps=steps,
        batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=min(recipe.warmup_steps, steps),
        temperature=recipe.temperature,
        divergence=recipe.divergence,
        seed=seed,
    )
    begun = time.process_time()
    history = distiller.train()
    spent = time.process_time() - begun - judging
    return Trained(history.step, history.tokens, spent, curve)


def settings_of(
    recipe: Recipe, rows: Tensor, start: Decoder, teacher: Decoder, **more: Any
) -> dict[str, Any]:
    """All that decides a run: a change of any of it makes another run."""
    return {
        **asdict(recipe),
        **recipe.build().describe(),
        "rows": Rows(rows, learned(rows), teacher.config.vocab_size).digest(),
        "start": fingerprint(start),
        "teacher": fingerprint(teacher),
        **more,
    }


class Ledger:
    """Finished runs, a JSON file each, named by their settings: a rerun reads them and goes on.

    bar: moved by one for every run, read or made.
    """

    def __init__(self, folder: Path, bar: tqdm[Any] | None = None) -> None:
        check_folder("work", folder)
        self.folder, self._bar = folder, bar
        self.reused = 0

    def run(
        self, name: str, settings: Mapping[str, Any], make: Callable[[], dict[str, Any]]
    ) -> dict[str, Any]:
        """What ``make`` returned when it ran with these settings, now or before.

        Raises ValueError for a file that cannot be read.
        """
        text = json.dumps({"name": name, **settings}, sort_keys=True)
        path = self.folder / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.json"
        if self._bar is not None:
            self._bar.set_postfix_str(name)
        if path.is_file():
            found = self._read(path)
            self.reused += 1
        else:
            # As it would be read: a resumed study is the uninterrupted one to the last digit.
            found = json.loads(json.dumps(make()))
            self.folder.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".part")
            record = {"settings": json.loads(text), "result": found}
            partial.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            os.replace(partial, path)
        if self._bar is not None:
            self._bar.update()
        return found

    def _read(self, path: Path) -> dict[str, Any]:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))["result"]
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"{path} is damaged: delete it to make that run again")
        return found
