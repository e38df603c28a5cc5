"""Floor 4: serving many requests at once."""

from slmlab.serving.engine import Engine, QueueFull
from slmlab.serving.request import Completion, Output, SamplingParams, TokenLogprob

__all__ = ["Completion", "Engine", "Output", "QueueFull", "SamplingParams", "TokenLogprob"]
