"""Texts and tasks: the grammar, the corpus, the tokenizer, and what models are judged on.

Importing this room needs the standard library alone; `train_tokenizer` loads transformers.
"""

from __future__ import annotations

from slmlab.data.corpus import Corpus, Document, Origin, read_corpus
from slmlab.data.evaluation import (
    EVALUATION_SETS,
    EvaluationSet,
    calibration_text,
    evaluation_set,
)
from slmlab.data.grammar import TASKS, Sample, documents, entropy_bits, sample, stream
from slmlab.data.special_tokens import SPECIAL_TOKENS
from slmlab.data.tokenizer import tokenizer_texts, train_tokenizer

__all__ = [
    "TASKS",
    "Sample",
    "documents",
    "sample",
    "stream",
    "entropy_bits",
    "Corpus",
    "Document",
    "Origin",
    "read_corpus",
    "SPECIAL_TOKENS",
    "tokenizer_texts",
    "train_tokenizer",
    "EVALUATION_SETS",
    "EvaluationSet",
    "evaluation_set",
    "calibration_text",
]
