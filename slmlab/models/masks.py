"""Which keys a query may see: causal order, left padding, sliding windows."""

from __future__ import annotations

import torch
from torch import Tensor


def check_padding(attention_mask: Tensor, input_ids: Tensor, past: int) -> Tensor:
    """The padding mask as bool, (batch, past + time); raises ValueError on another shape."""
    if not isinstance(attention_mask, Tensor):
        raise TypeError(f"attention_mask must be a tensor, not {type(attention_mask).__name__}")
    wanted = (input_ids.shape[0], past + input_ids.shape[1])
    if tuple(attention_mask.shape) != wanted:
        raise ValueError(
            f"attention_mask must cover cached and new tokens, shape {wanted}, not "
            f"{tuple(attention_mask.shape)}"
        )
    return attention_mask.bool()


def positions_from_padding(padding: Tensor, time: int) -> Tensor:
    """Rotary positions (batch, time) of the last ``time`` tokens, counting real tokens only."""
    return (padding.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -time:]


class LayerMasks:
    """The attention mask of every layer in one forward pass, built once a distinct window.

    ``of_layer`` returns (mask, is_causal) as ``scaled_dot_product_attention`` takes them. No
    mask is built where the kernel's own causal flag, or no mask at all, says the same.
    """

    def __init__(
        self,
        layer_windows: tuple[int | None, ...],
        time: int,
        past: int,
        padding: Tensor | None,
        device: torch.device,
    ) -> None:
        self.windows = layer_windows
        self.time = time
        self.past = past
        self.padding = padding
        self.device = device
        self._built: dict[tuple[int | None, int], Tensor] = {}

    def of_layer(self, layer: int, keys: int) -> tuple[Tensor | None, bool]:
        """Mask for the ``keys`` newest tokens, which end with this pass's own tokens."""
        window = self.windows[layer]
        seen = self.past + self.time
        if self.padding is None and self.time == 1 and (window is None or keys <= window):
            return None, False
        if self.padding is None and keys == self.time and (window is None or seen <= window):
            return None, True
        key = (window, keys)
        if key not in self._built:
            self._built[key] = self._build(window, keys)
        return self._built[key], False

    def _build(self, window: int | None, keys: int) -> Tensor:
        end = self.past + self.time
        query_at = torch.arange(self.past, end, device=self.device)[:, None]
        key_at = torch.arange(end - keys, end, device=self.device)[None, :]
        mask = key_at <= query_at  # (time, keys)
        if window is not None:
            mask &= key_at > query_at - window
        if self.padding is None:
            return mask
        # A padded query has no real key; it keeps itself, or softmax over nothing gives NaN.
        mask = mask & self.padding[:, None, None, end - keys :]
        return mask | (key_at == query_at)  # (batch, 1, time, keys)
