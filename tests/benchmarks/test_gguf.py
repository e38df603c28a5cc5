"""The GGUF files that llama.cpp races with hold the same model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks._gguf import write_gguf
from benchmarks._smollm2 import write_random_model
from slmlab.models import ModelConfig, RopeConfig, model_directory
from slmlab.models.loading import read_config
from tests.models.layouts import saved

gguf = pytest.importorskip(
    "gguf", reason="gguf is not installed: it comes with the llama-cpp extra"
)

TINY = model_directory("tiny")
# Hugging Face's name of a layer's tensor -> llama.cpp's, from ggml's description of the format.
LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        return f"blk.{layer}.{LAYER_NAMES[rest.removesuffix('.weight')]}.weight"
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
    }[name]


def half_split(rows: np.ndarray, head_dim: int) -> np.ndarray:
    """Rows with neighbours as pairs, back to pairs that lie half a head apart, one by one."""
    restored = np.empty_like(rows)
    for row in range(len(rows)):
        head, inside = divmod(row, head_dim)
        second, pair = divmod(inside, head_dim // 2)
        restored[row] = rows[head * head_dim + 2 * pair + second]
    return restored


def field(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_the_weights_are_the_checkpoints(tmp_path: Path, dtype: torch.dtype) -> None:
    write_gguf(TINY, tmp_path / "tiny.gguf", dtype)
    config = read_config(TINY)
    written = {t.name: np.array(t.data) for t in gguf.GGUFReader(tmp_path / "tiny.gguf").tensors}
    checkpoint = load_file(TINY / "model.safetensors")
    assert set(written) == {gguf_name(name) for name in checkpoint}  # a tied head is left out
    for name, tensor in checkpoint.items():
        found = written[gguf_name(name)]
        matrix = tensor.dim() == 2
        assert found.dtype == (np.float16 if matrix and dtype == torch.float16 else np.float32)
        if "q_proj" in name or "k_proj" in name:
            assert not np.array_equal(found, tensor.to(dtype).numpy())
            found = half_split(found, config.head_dim)
        assert np.array_equal(found, tensor.float().numpy()), name
    assert not list(tmp_path.glob("*.part"))


def test_sizes_and_tokenizer(tmp_path: Path) -> None:
    write_gguf(TINY, tmp_path / "tiny.gguf", torch.float16)
    reader, config = gguf.GGUFReader(tmp_path / "tiny.gguf"), read_config(TINY)
    for key, wanted in {
        "block_count": config.num_hidden_layers,
        "embedding_length": config.hidden_size,
        "feed_forward_length": config.intermediate_size,
        "attention.head_count": config.num_attention_heads,
        "attention.head_count_kv": config.num_key_value_heads,
        "rope.dimension_count": config.head_dim,
        "rope.freq_base": config.rope.theta,
        "context_length": config.max_position_embeddings,
        "vocab_size": config.vocab_size,
    }.items():
        assert field(reader, f"llama.{key}") == wanted, key
    epsilon = field(reader, "llama.attention.layer_norm_rms_epsilon")
    assert epsilon == pytest.approx(config.rms_norm_eps)
    tokenizer = json.loads((TINY / "tokenizer.json").read_text(encoding="utf-8"))
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert {token: i for i, token in enumerate(tokens)} == tokenizer["model"]["vocab"]
    kinds = field(reader, "tokenizer.ggml.token_type")
    special = [token["id"] for token in tokenizer["added_tokens"]]
    assert [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.CONTROL] == special
    assert len(field(reader, "tokenizer.ggml.merges")) == len(tokenizer["model"]["merges"])
    assert field(reader, "tokenizer.ggml.eos_token_id") == config.eos_token_ids[0]


def test_a_larger_vocabulary_is_filled_up(tmp_path: Path) -> None:
    rope = RopeConfig(theta=50000.0)
    config = ModelConfig("llama", 2050, 16, 32, 1, 2, 1, 8, 64, rope=rope, tie_word_embeddings=True)
    write_random_model(tmp_path / "random", config)
    write_gguf(tmp_path / "random", tmp_path / "r.gguf", torch.float16, tokenizer="tiny")
    reader = gguf.GGUFReader(tmp_path / "r.gguf")
    tokens = field(reader, "tokenizer.ggml.tokens")
    assert len(tokens) == 2050 == len(set(tokens))
    kinds = field(reader, "tokenizer.ggml.token_type")
    assert [i for i, kind in enumerate(kinds) if kind == gguf.TokenType.UNUSED] == [2048, 2049]
    assert field(reader, "llama.rope.freq_base") == rope.theta


def test_what_llama_cpp_would_compute_differently_is_refused(tmp_path: Path) -> None:
    target = tmp_path / "x.gguf"
    for layout in ("qwen2", "llama-biases", "llama3-rope"):
        saved(layout, tmp_path / layout)
        with pytest.raises(ValueError, match="only llama with default rope"):
            write_gguf(tmp_path / layout, target, torch.float32, tokenizer="tiny")
    with pytest.raises(ValueError, match="dtype"):
        write_gguf(TINY, target, torch.bfloat16)
    assert not target.exists()
