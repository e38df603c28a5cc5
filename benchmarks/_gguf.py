"""A GGUF file for llama.cpp from a Llama folder in Hugging Face layout: same weights, same ids.

The format: github.com/ggml-org/ggml, docs/gguf.md; gguf is llama.cpp's own writer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from slmlab.models import ModelConfig, model_directory
from slmlab.models.layout import hf_shapes
from slmlab.models.loading import read_config
from slmlab.models.weights import read_tensors, weight_files

if TYPE_CHECKING:
    import gguf


def write_gguf(
    directory: str | Path,
    target: Path,
    dtype: torch.dtype,
    tokenizer: str | Path | None = None,
    quantization: str | None = None,
) -> None:
    """Write the model in ``directory`` to ``target``: matrices in ``dtype``, norms in float32.

    quantization: "Q8_0" or "Q4_0", which gguf's quantiser makes of all matrices in ``dtype``, the
    embedding (a tied head) among them.
    tokenizer: the folder whose byte-level BPE goes in (default: ``directory``); ids that it does
    not have are filled up with unused ones, since llama.cpp refuses a vocabulary of another size.
    Raises ValueError for a dtype other than float32 and float16, another quantization, and for a
    model that llama.cpp's plain Llama does not compute: another family, biases, scaled rotary
    positions.
    """
    import gguf

    types = {
        torch.float32: gguf.LlamaFileType.ALL_F32,
        torch.float16: gguf.LlamaFileType.MOSTLY_F16,
    }
    if dtype not in types:
        raise ValueError(f"dtype must be torch.float32 or torch.float16, got {dtype}")
    if quantization not in (None, "Q8_0", "Q4_0"):
        raise ValueError(f"quantization must be 'Q8_0', 'Q4_0' or None, got {quantization!r}")
    folder = model_directory(directory)
    config = read_config(folder)
    _check_plain(config)
    beside = target.with_suffix(".part")
    writer = gguf.GGUFWriter(beside, "llama")
    writer.add_name(folder.name)
    file_type = types[dtype]
    if quantization is not None:
        file_type = gguf.LlamaFileType[f"MOSTLY_{quantization}"]
    writer.add_file_type(file_type)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope.theta)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    _add_tokenizer(writer, model_directory(tokenizer or folder), config)
    _add_tensors(writer, folder, config, dtype, quantization)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    os.replace(beside, target)


def interleave_pairs(rows: NDArray[np.floating], heads: int) -> NDArray[np.floating]:
    """Query or key rows (heads * D, in) reordered for llama.cpp.

    Hugging Face turns row i with row i + D/2 of a head; llama.cpp turns neighbours.
    """
    halves = rows.reshape(heads, 2, -1, rows.shape[1])  # (heads, 2, D/2, in)
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(rows.shape))


def _check_plain(config: ModelConfig) -> None:
    biased = config.qkv_bias or config.o_bias or config.mlp_bias
    if config.model_type != "llama" or biased or config.rope.rope_type != "default":
        raise ValueError(
            f"directory holds a {config.model_type} with rope {config.rope.rope_type!r} and "
            f"biases {biased}: only llama with default rope and no biases is written"
        )


def _add_tensors(
    writer: gguf.GGUFWriter,
    folder: Path,
    config: ModelConfig,
    dtype: torch.dtype,
    quantization: str | None,
) -> None:
    import gguf

    kind = None if quantization is None else gguf.GGMLQuantizationType[quantization]
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in read_tensors(weight_files(folder), hf_shapes(config)).items():
        # llama.cpp adds and scales in float32 and takes norms in no other type.
        values = tensor.to(dtype if tensor.dim() == 2 else torch.float32).numpy()
        layer = name.split(".")[-2]
        if layer in heads:
            values = interleave_pairs(values, heads[layer])
        theirs = names.get_name(name, try_suffixes=(".weight",))
        assert theirs is not None, f"gguf has no name for {name}"
        if kind is not None and tensor.dim() == 2:
            values = gguf.quantize(values.astype(np.float32), kind)
            writer.add_tensor(theirs, values, raw_dtype=kind)
        else:
            writer.add_tensor(theirs, values)


def _add_tokenizer(writer: gguf.GGUFWriter, folder: Path, config: ModelConfig) -> None:
    import gguf

    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    special = {token["id"]: token["content"] for token in tokenizer["added_tokens"]}
    known = {i: token for token, i in tokenizer["model"]["vocab"].items()} | special
    tokens, kinds = [], []
    for i in range(config.vocab_size):
        kind = gguf.TokenType.CONTROL if i in special else gguf.TokenType.NORMAL
        tokens.append(known.get(i, f"<|unused {i}|>"))
        kinds.append(kind if i in known else gguf.TokenType.UNUSED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    merges = tokenizer["model"]["merges"]
    writer.add_token_merges([m if isinstance(m, str) else " ".join(m) for m in merges])
    end = config.eos_token_ids[0] if config.eos_token_ids else 0
    writer.add_bos_token_id(end if config.bos_token_id is None else config.bos_token_id)
    writer.add_eos_token_id(end)
    writer.add_pad_token_id(end)
    writer.add_add_bos_token(False)
