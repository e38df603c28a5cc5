"""Whether two models mean the same text by the same ids."""

from __future__ import annotations

import json
from typing import Any

from slmlab.distill.forward import vocabulary_of


def check_same_vocabulary(student: Any, teacher: Any) -> int:
    """The size of the vocabulary that both models share.

    Raises ValueError where their logits have different widths, TypeError for what is no model.
    """
    ours, theirs = vocabulary_of("student", student), vocabulary_of("teacher", teacher)
    if ours != theirs:
        raise ValueError(
            f"the student has a vocabulary of {ours}, the teacher one of {theirs}: distillation "
            "compares token by token, so both need one tokenizer and logits of one width. Take a "
            "pair of one family; if only padding rows differ, cut the larger table"
        )
    return ours


def check_same_tokenizer(student: Any, teacher: Any) -> None:
    """Raise ValueError where two transformers tokenizers give a text different ids.

    Compared are the tokens with their ids and, of fast tokenizers, the rules that cut a text.
    """
    ours, theirs = student.get_vocab(), teacher.get_vocab()
    if ours != theirs:
        odd = sorted(
            token for token in ours.keys() | theirs.keys() if _id(ours, token) != _id(theirs, token)
        )
        raise ValueError(
            f"student and teacher have different tokenizers: token {odd[0]!r} has id "
            f"{_id(ours, odd[0])} and {_id(theirs, odd[0])} ({len(odd)} tokens differ). Train the "
            "student with the teacher's tokenizer"
        )
    mine, other = _rules(student), _rules(teacher)
    if mine is not None and other is not None and mine != other:
        part = next(name for name in mine if mine[name] != other.get(name))
        raise ValueError(
            f"student and teacher have the same tokens but cut a text differently (their {part} "
            "differ): train the student with the teacher's tokenizer"
        )


def _id(vocabulary: dict[str, int], token: str) -> int | None:
    return vocabulary.get(token)


def _rules(tokenizer: Any) -> dict[str, Any] | None:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return None
    whole = json.loads(backend.to_str())
    return {name: whole.get(name) for name in ("normalizer", "pre_tokenizer", "model")}
