"""anatomy.bytes_per_token against the tensors of the transformers model of the same config."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from slmlab.lessons.anatomy.bytes_per_token import BYTES_PER_TOKEN, KV_DTYPES, SCHEMES
from tests.lessons.configs import configs, meta_model


@settings(max_examples=15)
@given(
    config=configs(multiple=32),
    bits=st.sampled_from(sorted(SCHEMES)),
    context=st.integers(0, 50),
    value=st.sampled_from(sorted(KV_DTYPES)),
)
def test_reference_against_transformers(
    config: dict[str, int], bits: float, context: int, value: int
) -> None:
    model = meta_model(config)
    wanted = Fraction(0)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and name != "lm_head":
            wanted += module.weight.numel() * Fraction(bits) / 8
        if name.endswith(("k_proj", "v_proj")):
            wanted += module.out_features * context * value
        if name.endswith("norm"):
            wanted += 2 * module.weight.numel()
    wanted += 2 * model.lm_head.weight.numel()
    if not model.config.tie_word_embeddings:
        wanted += 2 * model.model.embed_tokens.weight.shape[1]
    assert BYTES_PER_TOKEN.reference(config, bits, context, value) == wanted


def test_the_worked_examples() -> None:
    config = {
        "vocab_size": 40,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    assert BYTES_PER_TOKEN.reference(config, 8.5, 0, 2) == 42_624
    assert BYTES_PER_TOKEN.reference(config, 8.5, 10, 2) == 42_624 + 2_560
    two = config | {"num_hidden_layers": 2, "num_key_value_heads": 1}
    assert f"{BYTES_PER_TOKEN.reference(two, 4.5, 10, 2):,}" in BYTES_PER_TOKEN.hints[1]
    cache = BYTES_PER_TOKEN.reference(two, 4.5, 10, 2) - BYTES_PER_TOKEN.reference(two, 4.5, 0, 2)
    assert f"{cache:,} bytes." in BYTES_PER_TOKEN.hints[1]
