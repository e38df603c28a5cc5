"""Text for stories260K that is at hand wherever the model is: stories that it tells itself."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from slmlab.kv import ContiguousCache
from slmlab.models import Decoder
from tests.quant.small_models import STORIES260K

needs_stories260k = pytest.mark.skipif(
    not STORIES260K.is_dir(), reason="stories260K is not part of the repository and not present"
)
FORMS = pytest.mark.parametrize("form", ["Decoder", "transformers"])


@cache
def told(rows: int, time: int, seed: int) -> Tensor:
    """Token ids (rows, time), drawn from the model at temperature 1."""
    model = Decoder.from_pretrained(STORIES260K)
    random = torch.Generator().manual_seed(seed)
    cache = ContiguousCache(model.config, rows, max_length=time)
    drawn = [torch.full((rows, 1), 1)]  # <s>
    with torch.no_grad():
        while len(drawn) < time:
            probabilities = model(drawn[-1], cache)[:, -1].softmax(-1)
            drawn.append(torch.multinomial(probabilities, 1, generator=random))
    return torch.cat(drawn, dim=1)


def stories_model(form: str) -> Any:
    """The model as slmlab's Decoder or as transformers' own."""
    if form == "Decoder":
        return Decoder.from_pretrained(STORIES260K)
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(STORIES260K).eval()
