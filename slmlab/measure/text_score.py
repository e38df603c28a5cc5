"""Bits per byte of a text: comparable between tokenizers, as perplexity a token is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from slmlab.measure.perplexity import Score, score


@dataclass(frozen=True)
class TextScore:
    """A text's cost: the token score, and the bytes that the scored tokens spell.

    text_bytes: UTF-8 bytes of the whole text. tokens: text tokens scored (all of them: a
    prefix token stands before the first). bits_per_byte: bits a byte of UTF-8.
    """

    score: Score
    text_bytes: int

    @property
    def tokens(self) -> int:
        """Text tokens scored: all of them."""
        return self.score.tokens

    @property
    def bits_per_byte(self) -> float:
        """Bits a byte of UTF-8."""
        return self.score.bits_per_byte(self.text_bytes)

    @property
    def bytes_per_token(self) -> float:
        """UTF-8 bytes that a token spells on average."""
        return self.text_bytes / self.tokens


def _prefix(tokenizer: Any, prefix_id: int | None) -> int:
    for candidate in (
        prefix_id,
        getattr(tokenizer, "bos_token_id", None),
        getattr(tokenizer, "eos_token_id", None),
    ):
        if candidate is not None:
            return int(candidate)
    raise ValueError(
        "the tokenizer has no bos or eos token to put before the text: pass prefix_id="
        "(the id that stood between documents in training), so that every byte is scored"
    )


def score_text(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    prefix_id: int | None = None,
) -> TextScore:
    """Score every token of ``text``, the first one too, behind one prefix token.

    tokenizer: transformers tokenizer. prefix_id: token before the text, itself not scored
    (default: bos, else eos). Without it the first token's bytes would count in the
    denominator and not in the numerator. Raises ValueError for an empty text, for a text that
    the tokenizer cannot write (unknown tokens lose bytes), and as `score`; TypeError where
    text is no str.
    """
    if not isinstance(text, str):
        raise TypeError(f"text must be a str, got {type(text).__name__}")
    if not text:
        raise ValueError("text is empty: pass at least one character")
    prefix = _prefix(tokenizer, prefix_id)
    ids = list(tokenizer.encode(text, add_special_tokens=False))
    if not ids:
        raise ValueError("text encodes to no tokens: pass text that this tokenizer can write")
    unknown = getattr(tokenizer, "unk_token_id", None)
    specials = (getattr(tokenizer, "bos_token_id", None), getattr(tokenizer, "eos_token_id", None))
    if unknown is not None and unknown not in specials and unknown in ids:
        raise ValueError(
            f"text holds {ids.count(unknown)} tokens unknown to the tokenizer: bits per byte "
            "would leave out their bytes; use a byte-level tokenizer or clean the text"
        )
    return TextScore(
        score=score(model, [prefix, *ids], window=window, stride=stride),
        text_bytes=len(text.encode("utf-8")),
    )


def bits_per_byte(
    model: Any,
    tokenizer: Any,
    text: str,
    *,
    window: int | None = None,
    stride: int | None = None,
    prefix_id: int | None = None,
) -> float:
    """Bits that the model needs for a byte of ``text`` (UTF-8). Arguments as `score_text`."""
    return score_text(
        model, tokenizer, text, window=window, stride=stride, prefix_id=prefix_id
    ).bits_per_byte
