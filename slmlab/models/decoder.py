"""The decoder: a Llama-family transformer, small enough to read in one sitting.

One forward pass: embed the ids, run every layer (attention, then MLP, each behind a norm and
added to the residual stream), norm, multiply by the head. Llama 3, SmolLM2, Mistral, Qwen2 and
Qwen3 differ only in what ``ModelConfig`` switches: biases, norms on queries and keys, windows.

Two products are fused, as serving engines do: queries, keys and values in ``qkv_proj``, gate
and up in ``gate_up_proj``. One larger matrix is read at the same bandwidth with fewer calls.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional

from slmlab.models.attend import attend
from slmlab.models.cache import AnyCache, stored_tokens
from slmlab.models.config import ModelConfig
from slmlab.models.masks import LayerMasks, check_padding, positions_from_padding
from slmlab.models.norm import RMSNorm
from slmlab.models.projection import Projection
from slmlab.models.rope import apply_rope, rope_inverse_frequencies, rope_tables


class Attention(nn.Module):
    """Grouped-query attention with rotary positions."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.heads = config.num_attention_heads
        self.kv_heads = config.num_key_value_heads
        self.head_dim = config.head_dim
        width = (self.heads + 2 * self.kv_heads) * self.head_dim
        self.qkv_proj = Projection(config.hidden_size, width, bias=config.qkv_bias)
        self.o_proj = Projection(self.heads * self.head_dim, config.hidden_size, bias=config.o_bias)
        self.q_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(self.head_dim, config.rms_norm_eps) if config.qk_norm else None

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        masks: LayerMasks,
        cache: AnyCache | None,
    ) -> Tensor:
        batch, time, _ = x.shape
        qkv = self.qkv_proj(x).view(batch, time, -1, self.head_dim).transpose(1, 2)
        q, k, v = qkv.split((self.heads, self.kv_heads, self.kv_heads), dim=1)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
            q, k = apply_rope(q, cos, sin), apply_rope(k, cos, sin)
        else:
            # Queries and keys lie side by side in the fused product: one rotation serves both.
            turned = apply_rope(qkv[:, : self.heads + self.kv_heads], cos, sin)
            q, k = turned.split((self.heads, self.kv_heads), dim=1)
        if cache is not None and hasattr(cache, "attend"):
            out = cache.attend(self.layer, q, k, v, masks.windows[self.layer])
        else:
            if cache is not None:
                k, v = cache.append(self.layer, k, v)  # (batch, kv_heads, keys, head_dim)
            mask, causal = masks.of_layer(self.layer, keys=k.shape[2])
            out = attend(q, k, v, mask, causal)  # (batch, heads, time, head_dim)
        return self.o_proj(out.transpose(1, 2).reshape(batch, time, -1))


class MLP(nn.Module):
    """SwiGLU (Shazeer 2020, arXiv:2002.05202): down(silu(gate) * up)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gate_up_proj = Projection(
            config.hidden_size, 2 * config.intermediate_size, bias=config.mlp_bias
        )
        self.down_proj = Projection(
            config.intermediate_size, config.hidden_size, bias=config.mlp_bias
        )

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up_proj(x).chunk(2, dim=-1)
        return self.down_proj(functional.silu(gate) * up)


class Block(nn.Module):
    """One layer: x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config, layer)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(
        self,
        x: Tensor,
        cos: Tensor,
        sin: Tensor,
        masks: LayerMasks,
        cache: AnyCache | None,
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, masks, cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """A causal language model: token ids in, logits out."""

    inverse_frequencies: Tensor

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Block(config, i) for i in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Projection(config.hidden_size, config.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.embed_tokens.weight
        self.reset_rotation()

    @classmethod
    def from_pretrained(
        cls,
        dir_or_name: str | Path,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> Decoder:
        """Load "tiny", "tiny-draft", a directory in Hugging Face layout, or a hub id.

        Raises:
            ValueError: nothing there, a pickle checkpoint, an unknown architecture, a truncated
                file, tensors that are missing or disagree with the config, a checkpoint that is
                already quantised, a dtype or device that cannot be used here.
            TypeError: no torch.dtype, no device.
        """
        from slmlab.models.loading import load_decoder

        return load_decoder(dir_or_name, dtype=dtype, device=device)

    def reset_rotation(self, device: torch.device | str | None = None) -> None:
        """Compute the rotary frequencies; they are derived from the config, never stored."""
        frequencies = rope_inverse_frequencies(self.config.head_dim, self.config.rope)
        self.register_buffer("inverse_frequencies", frequencies.to(device), persistent=False)

    def pack(self) -> Self:
        """Prepare every product for 2 to 64 rows: serving a batch, verifying a draft.

        Takes as many bytes again as the float32 weights; on other devices and dtypes it does
        nothing. See :meth:`slmlab.models.projection.Projection.pack`.
        """
        for module in self.modules():
            if isinstance(module, Projection):
                module.pack()
        return self

    @property
    def device(self) -> torch.device:
        return self.embed_tokens.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype

    def forward(
        self,
        input_ids: Tensor,
        cache: AnyCache | None = None,
        *,
        positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        output_hidden_states: bool = False,
    ) -> Tensor | tuple[Tensor, list[Tensor]]:
        """Logits of the next token at every position.

        Args:
            input_ids: (B, T) int64. With a cache, the tokens that follow those stored.
            cache: keys and values of earlier tokens; receives the new ones.
            positions: (T,) or (B, T) int64 rotary positions; by default they continue the
                cache, or count the unpadded tokens of ``attention_mask``.
            attention_mask: (B, cached + T), true or 1 where a token is real: left padding.
            output_hidden_states: also return L + 1 tensors (B, T, D), the embeddings first;
                the last one has passed the final norm, as in transformers.

        Returns:
            logits (B, T, V), or (logits, hidden states).

        Raises:
            ValueError, TypeError: wrong shape or dtype, an id outside the vocabulary, a cache
                made for another model.
        """
        states: list[Tensor] | None = [] if output_hidden_states else None
        hidden = self.hidden(input_ids, cache, positions, attention_mask, states)
        logits = self.lm_head(hidden)
        return logits if states is None else (logits, states)

    def hidden(
        self,
        input_ids: Tensor,
        cache: AnyCache | None = None,
        positions: Tensor | None = None,
        attention_mask: Tensor | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """``forward`` without the head: (B, T, D) after the final norm.

        Generation needs the head at the last position only, and at a vocabulary of 49,152 the
        head's output is the largest tensor of a prefill.
        """
        x = self._embed(input_ids)
        past = stored_tokens(cache)
        if positions is None:
            positions = getattr(cache, "positions", None)
        if attention_mask is not None:
            attention_mask = check_padding(attention_mask, input_ids, past)
        windows = getattr(cache, "layer_windows", self.config.layer_windows)
        masks = LayerMasks(windows, input_ids.shape[1], past, attention_mask, x.device)
        cos, sin = self._rotation(input_ids, past, positions, attention_mask)
        for block in self.layers:
            if states is not None:
                states.append(x)
            x = block(x, cos, sin, masks, cache)
        if cache is not None and cache.length != past + input_ids.shape[1]:
            raise ValueError(
                f"cache of length {past} did not advance by the {input_ids.shape[1]} tokens of this "
                f"pass, but to {cache.length}: it was made for another number of layers than this "
                f"model's {self.config.num_hidden_layers}"
            )
        x = self.norm(x)
        if states is not None:
            states.append(x)
        return x

    def _embed(self, input_ids: Tensor) -> Tensor:
        if not isinstance(input_ids, Tensor) or input_ids.dtype != torch.int64:
            kind = getattr(input_ids, "dtype", type(input_ids).__name__)
            raise TypeError(f"input_ids must be an int64 tensor, not {kind}")
        if input_ids.dim() != 2 or input_ids.numel() == 0:
            raise ValueError(
                f"input_ids must have shape (batch, time) with at least one token, not "
                f"{tuple(input_ids.shape)}"
            )
        try:
            return self.embed_tokens(input_ids)  # (batch, time, hidden)
        except IndexError:
            bad = input_ids[(input_ids < 0) | (input_ids >= self.config.vocab_size)][0].item()
            raise ValueError(
                f"input_ids holds token id {bad}, outside the vocabulary of "
                f"{self.config.vocab_size}: was it made by another model's tokenizer?"
            ) from None

    def _rotation(
        self, input_ids: Tensor, past: int, positions: Tensor | None, padding: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        time = input_ids.shape[1]
        if positions is None and padding is not None:
            positions = positions_from_padding(padding, time)
        elif positions is None:
            positions = torch.arange(past, past + time, device=input_ids.device)
        elif not isinstance(positions, Tensor) or positions.dtype != torch.int64:
            kind = getattr(positions, "dtype", type(positions).__name__)
            raise TypeError(f"positions must be an int64 tensor, not {kind}")
        elif positions.shape not in ((time,), tuple(input_ids.shape)):
            raise ValueError(
                f"positions must have shape ({time},) or {tuple(input_ids.shape)}, not "
                f"{tuple(positions.shape)}"
            )
        cos, sin = rope_tables(positions, self.inverse_frequencies)
        dtype = self.dtype
        # (time, D/2) broadcasts over batch and heads; (batch, time, D/2) needs a head axis.
        if cos.dim() == 3:
            cos, sin = cos[:, None], sin[:, None]
        return cos.to(dtype), sin.to(dtype)
