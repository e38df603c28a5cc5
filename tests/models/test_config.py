"""Fields that cannot be: refused where the config is made, not where the arithmetic fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from slmlab.models import ModelConfig, RopeConfig

FIELDS: dict[str, Any] = dict(
    model_type="mistral",
    vocab_size=97,
    hidden_size=48,
    intermediate_size=80,
    num_hidden_layers=3,
    num_attention_heads=6,
    num_key_value_heads=2,
    max_position_embeddings=256,
    rms_norm_eps=1e-6,
)


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"rope_theta": 0}, ValueError, r"rope_theta=0\.0 must be positive"),
        ({"rope_theta": -1.0}, ValueError, "rope_theta=-1.0 must be positive"),
        ({"rope_theta": 10**400}, ValueError, "rope_theta=inf must be positive and finite"),
        ({"rope_theta": "1e4"}, TypeError, "rope_theta must be a number"),
        ({"rope_parameters": {"rope_theta": 0.0}}, ValueError, "rope_theta=0.0"),
        ({"rope_parameters": {"rope_type": "linear", "factor": 0}}, ValueError, "factor=0.0"),
        ({"rope_scaling": {"type": "linear", "factor": -2.0}}, ValueError, "factor=-2.0"),
        ({"rope_scaling": "linear"}, TypeError, "rope_scaling must be a dict"),
        (
            {"rope_parameters": {"rope_type": "llama3", "low_freq_factor": 4.0}},
            ValueError,
            "low_freq_factor=4.0 must be below high_freq_factor=4.0",
        ),
        (
            {"rope_parameters": {"original_max_position_embeddings": 0}},
            ValueError,
            "original_max_position_embeddings=0 must be at least 1",
        ),
        ({"sliding_window": 0}, ValueError, "sliding_window=0 must be at least 1"),
        ({"sliding_window": -4}, ValueError, "sliding_window=-4 must be at least 1"),
        ({"sliding_window": 4.5}, TypeError, "sliding_window must be an int"),
        ({"num_key_value_heads": 0}, ValueError, "num_key_value_heads=0 must be at least 1"),
        ({"head_dim": 0}, ValueError, "head_dim=0 must be at least 1"),
        ({"num_attention_heads": 0}, ValueError, "num_attention_heads=0 must be at least 1"),
        ({"rms_norm_eps": "1e-6"}, TypeError, "rms_norm_eps must be a number"),
        ({"rms_norm_eps": None}, ValueError, "rms_norm_eps is missing"),
        ({"eos_token_id": "</s>"}, TypeError, "eos_token_id must be an int"),
        (
            {"model_type": "qwen3", "sliding_window": 4, "layer_types": ["chunked_attention"] * 3},
            ValueError,
            "layer_types holds 'chunked_attention'",
        ),
    ],
)
def test_bad_fields(changes: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        ModelConfig.from_hf(SimpleNamespace(**{**FIELDS, **changes}))


def test_absent_fields_take_their_defaults() -> None:
    config = ModelConfig.from_hf(SimpleNamespace(**{**FIELDS, "rope_parameters": {"factor": None}}))
    assert config.rope == RopeConfig()
    assert (config.head_dim, config.layer_windows) == (8, (None, None, None))
    assert config.eos_token_ids == ()
    many = ModelConfig.from_hf(SimpleNamespace(**FIELDS, eos_token_id=[3, 5], rope_theta=5e5))
    assert (many.eos_token_ids, many.rope.theta) == ((3, 5), 5e5)
