"""What the models are judged on, and what quantisation may be calibrated on: never the same text.

The grammar sets and the prose have the same bytes on every machine. The sets from the held-out
files of the corpus depend on the Python and package versions installed: compare models on them,
quote no number from them.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from itertools import islice
from pathlib import Path

from slmlab.data.corpus import ORIGINS, STANDARD_LIBRARY, Domain, Origin, read_corpus
from slmlab.data.grammar import SPLITS, TASKS, Sample, documents, entropy_bits
from slmlab.data.grammar.chooser import EVALUATION, TRAINING, stream
from slmlab.data.special_tokens import END

SEED = 0
SAMPLES = 200
PROSE = Path(__file__).with_name("prose.md")
CORPUS_SETS: dict[str, tuple[Domain, tuple[Origin, ...]]] = {
    "stdlib-docs": ("docs", (STANDARD_LIBRARY,)),
    "stdlib-code": ("code", (STANDARD_LIBRARY,)),
    "docs": ("docs", ORIGINS),
    "code": ("code", ORIGINS),
}
EVALUATION_SETS = (*TASKS, "prose", *CORPUS_SETS)


@dataclass(frozen=True)
class EvaluationSet:
    """Texts to score. Grammar sets also have `samples`, with prompt, answer and bits of each."""

    name: str
    texts: tuple[str, ...]
    samples: tuple[Sample, ...] = ()
    entropy_bits: float | None = None

    @property
    def size_bytes(self) -> int:
        """Bytes of all texts in UTF-8."""
        return sum(len(text.encode()) for text in self.texts)

    @property
    def sha256(self) -> str:
        """Hash of the texts, each ended by a zero byte."""
        digest = hashlib.sha256()
        for text in self.texts:
            digest.update(text.encode() + b"\0")
        return digest.hexdigest()


def evaluation_set(name: str, split: str = EVALUATION) -> EvaluationSet:
    """The evaluation set of this name: one of EVALUATION_SETS.

    A grammar set holds 200 samples. With split="evaluation" they are distinct, and each contains
    a combination that training never shows: use it for the rate of right answers. With
    split="training" they are fresh draws from the training distribution: only there is
    `entropy_bits`, the mean bits of a document, a floor for a model's mean loss, and a small task
    such as tool_calls repeats texts of the training stream. The other sets know one split.

    Raises ValueError for an unknown name, or a split that the set does not have.
    """
    if name not in EVALUATION_SETS:
        raise ValueError(f"name is {name!r}: choose one of {', '.join(EVALUATION_SETS)}.")
    if split not in SPLITS or (split == TRAINING and name not in TASKS):
        raise ValueError(
            f"split is {split!r}: {name} has {'both splits' if name in TASKS else EVALUATION!r}; "
            "only the grammar tasks have 'training'."
        )
    if name in TASKS:
        samples = _samples(name, split)
        floor = entropy_bits(name) if split == TRAINING else None
        return EvaluationSet(name, tuple(sample.text for sample in samples), samples, floor)
    if name == "prose":
        return EvaluationSet(name, (PROSE.read_text(encoding="utf-8"),))
    domain, origins = CORPUS_SETS[name]
    return EvaluationSet(name, tuple(read_corpus("evaluation", origins).texts(domain)))


@cache
def _samples(task: str, split: str) -> tuple[Sample, ...]:
    draws = documents(SEED, (task,), split=split, name=f"evaluation-set/{split}")
    if split == TRAINING:
        return tuple(islice(draws, SAMPLES))
    distinct: dict[str, Sample] = {}
    while len(distinct) < SAMPLES:
        drawn = next(draws)
        distinct.setdefault(drawn.text, drawn)
    return tuple(distinct.values())


def calibration_text(
    seed: int = 0, size_bytes: int = 65_536, origins: tuple[Origin, ...] = (STANDARD_LIBRARY,)
) -> str:
    """About `size_bytes` of training text: a quarter docs, a quarter code, half grammar.

    Documents end in `<|endoftext|>`. None of them is in an evaluation set. Long files are cut to
    an eighth of the size, so that several fit. `origins` are the packages to read; with () the
    text is all grammar and the same on every machine.

    Raises ValueError unless `size_bytes` is at least 1024.
    """
    if size_bytes < 1024:
        raise ValueError(f"size_bytes is {size_bytes}: ask for at least 1024.")
    taken: list[str] = []
    size = 0
    corpus = read_corpus("training", origins) if origins else None
    domains: tuple[Domain, ...] = ("docs", "code")
    for place, domain in enumerate(domains, start=1):
        texts = corpus.texts(domain) if corpus is not None else []
        rng = stream(f"calibration/{domain}", seed)
        while texts and size < place * size_bytes / 4:
            text = texts.pop(int(rng.random() * len(texts)))[: size_bytes // 8]
            taken.append(text)
            size += len(text.encode())
    known = {sample.text for task in TASKS for split in SPLITS for sample in _samples(task, split)}
    draws = documents(seed, name="calibration/grammar")
    while size < size_bytes:
        text = next(draws).text
        if text not in known:
            taken.append(text)
            size += len(text)
    return "".join(text + END for text in taken)
