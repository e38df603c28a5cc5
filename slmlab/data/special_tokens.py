"""The four tokens that no text may spell by accident: the end of a text, and who speaks."""

from __future__ import annotations

END = "<|endoftext|>"
USER = "<|user|>"
ASSISTANT = "<|assistant|>"
SYSTEM = "<|system|>"
SPECIAL_TOKENS = (END, USER, ASSISTANT, SYSTEM)


def has_special_token(text: str) -> bool:
    """Whether a tokenizer would read a special token out of `text`."""
    return any(token in text for token in SPECIAL_TOKENS)
