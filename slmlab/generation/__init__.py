"""Floor 2: samplers, the plain generation loop, and the LanguageModel that ``load`` returns."""

from slmlab.generation.language_model import LanguageModel, load
from slmlab.generation.loop import generate_tokens
from slmlab.generation.sampling import (
    next_token_probabilities,
    sample,
    top_k_filter,
    top_p_filter,
)

__all__ = [
    "LanguageModel",
    "generate_tokens",
    "load",
    "next_token_probabilities",
    "sample",
    "top_k_filter",
    "top_p_filter",
]
