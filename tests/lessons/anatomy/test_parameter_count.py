"""anatomy.parameter_count against the parameters that transformers creates."""

from __future__ import annotations

from hypothesis import given, settings

from slmlab.lessons.anatomy.parameter_count import PARAMETER_COUNT
from slmlab.measure import read_architecture
from tests.lessons.configs import configs, meta_model


@settings(max_examples=15)
@given(config=configs())
def test_reference_against_transformers(config: dict[str, int]) -> None:
    model = meta_model(config)
    assert PARAMETER_COUNT.reference(config) == sum(p.numel() for p in model.parameters())
    assert PARAMETER_COUNT.reference(config) == read_architecture(model.config).parameters


def test_a_published_model() -> None:
    # Llama-3.2-1B, whose card states 1.23 billion parameters.
    config = {
        "vocab_size": 128256,
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "tie_word_embeddings": True,
    }
    assert PARAMETER_COUNT.reference(config) == 1_235_814_400


def test_the_worked_examples() -> None:
    small = {
        "vocab_size": 8,
        "hidden_size": 4,
        "intermediate_size": 6,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
    }
    assert PARAMETER_COUNT.reference(small) == 212
    hint = small | {"vocab_size": 10, "num_key_value_heads": 1, "tie_word_embeddings": True}
    assert f"Sum {PARAMETER_COUNT.reference(hint)}." in PARAMETER_COUNT.hints[1]
