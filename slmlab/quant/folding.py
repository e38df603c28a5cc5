"""Folds: places where a scale can move from activations into weights and leave the model alone.

Multiply the input columns of a layer by s, divide what produces its input by s, and every output
stays as it was. In a Llama-like block three producers are linear in something that can be divided:

- a norm's gain, before q, k, v and before gate and up;
- the rows of up, before down: silu(gate) * up is linear in up;
- the rows of v, before o: attention averages values. Under grouped queries several query heads
  read one value head, so their input channels of o share its scales.

AWQ and SmoothQuant differ only in the s they choose.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from slmlab.quant.blocks import decoder_blocks
from slmlab.quant.calibration import calibrating, inputs_of, run

KINDS = ("norm", "up", "value")


@dataclass
class Fold:
    """One producer and the linear layers that read it.

    kind: "norm", "up" or "value". producer: a norm, or the linear layer whose ``rows`` produce
    the input. consumers: name -> linear layer. head_dim, shared: for "value", consecutive
    ``shared`` heads of the consumer's input read one value head. applied: (channels,), what
    ``apply`` has moved so far.
    """

    kind: str
    producer: nn.Module
    consumers: dict[str, nn.Linear]
    rows: slice = field(default_factory=lambda: slice(None))
    head_dim: int = 0
    shared: int = 1
    applied: Tensor | None = None

    @property
    def channels(self) -> int:
        """Input channels of the consumers."""
        return inputs_of(next(iter(self.consumers.values())))

    def tie(self, per_channel: Tensor) -> Tensor:
        """(channels,) with the mean over channels that must share a scale; else unchanged."""
        if self.shared == 1:
            return per_channel
        heads = per_channel.view(-1, self.shared, self.head_dim)
        return heads.mean(dim=1, keepdim=True).expand_as(heads).reshape(-1)

    @torch.no_grad()
    def apply(self, scales: Tensor) -> None:
        """Divide the producer by ``scales`` (channels,), multiply the consumers' columns.

        Raises ValueError, with nothing changed, for scales that are not above 0, and where the
        producer is a norm whose output is not divided with its weight (Gemma's gain is 1 + weight).
        """
        if not bool((scales.isfinite() & (scales > 0)).all()):
            raise ValueError("scales must be finite and above 0: a fold by 0 loses the channel")
        if self.kind == "norm":
            self._check_norm(scales)
        self._move(scales)
        self.applied = scales if self.applied is None else self.applied * scales

    def undo(self) -> None:
        """Fold back all that was applied: the weights return to within rounding."""
        if self.applied is not None:
            self._move(1 / self.applied)
            self.applied = None

    @torch.no_grad()
    def _move(self, scales: Tensor) -> None:
        for layer in self.consumers.values():
            layer.weight.mul_(scales.to(layer.weight.dtype))  # (out, in) * (in,)
        each = scales
        if self.shared > 1:
            each = scales.view(-1, self.shared, self.head_dim)[:, 0].reshape(-1)
        for parameter in (self.producer.weight, getattr(self.producer, "bias", None)):
            if isinstance(parameter, Tensor):
                # (channels, in) of a linear layer, (channels,) of a norm
                part = parameter[self.rows]
                part.div_(each.to(part.dtype).view(-1, *[1] * (part.dim() - 1)))

    def _check_norm(self, scales: Tensor) -> None:
        """Try the division on a copy of the norm, with random inputs."""
        weight = self.producer.weight
        assert isinstance(weight, Tensor)
        random = torch.Generator(weight.device).manual_seed(0)
        x = torch.randn(4, len(scales), generator=random, dtype=weight.dtype, device=weight.device)
        divided = copy.deepcopy(self.producer)
        Fold("norm", divided, {})._move(scales)
        want = self.producer(x) / scales
        bound = 8 * torch.finfo(weight.dtype).eps * want.abs().amax(dim=0)
        if not bool(((divided(x) - want).abs() <= bound).all()):
            raise ValueError(
                f"model cannot be folded: the output of its {type(self.producer).__name__} is not "
                "divided with the weight (Gemma's gain is 1 + weight); use method='gptq'"
            )


def find_folds(model: nn.Module, kinds: tuple[str, ...] = KINDS) -> list[Fold]:
    """Folds of every block, in running order.

    Reads attribute names: input_layernorm, post_attention_layernorm, self_attn with qkv_proj (or
    q_proj, k_proj, v_proj) and o_proj, mlp with gate_up_proj (or gate_proj, up_proj) and
    down_proj. Raises ValueError where a block has others, or its layers are quantised already.
    """
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise ValueError(f"kinds holds {unknown[0]!r}: choose among {', '.join(KINDS)}")
    found = []
    for name, block in decoder_blocks(model).items():
        try:
            found += [fold for fold in _block_folds(f"{name}.", block) if fold.kind in kinds]
        except AttributeError as error:
            raise ValueError(
                f"model cannot be folded: its block {name!r} is not laid out as Llama's ({error}); "
                "use method='gptq', which needs no fold"
            ) from None
    return found


def _block_folds(prefix: str, block: Any) -> Iterator[Fold]:
    attention, mlp = block.self_attn, block.mlp
    if hasattr(block, "pre_feedforward_layernorm"):
        raise AttributeError("post_attention_layernorm does not feed the mlp")
    qkv = _linears(attention, prefix + "self_attn.", ("qkv_proj",), ("q_proj", "k_proj", "v_proj"))
    yield Fold("norm", _norm(block, "input_layernorm"), qkv)

    output = _linears(attention, prefix + "self_attn.", ("o_proj",))
    values = list(qkv.values())[-1]
    queries = inputs_of(attention.o_proj)  # heads * head_dim
    fused = len(qkv) == 1
    width = (values.out_features - queries) // 2 if fused else values.out_features
    rows = slice(values.out_features - width, values.out_features)
    shared = queries // width
    yield Fold("value", values, output, rows, int(attention.head_dim), shared)

    gate_up = _linears(mlp, prefix + "mlp.", ("gate_up_proj",), ("gate_proj", "up_proj"))
    yield Fold("norm", _norm(block, "post_attention_layernorm"), gate_up)

    up = list(gate_up.values())[-1]
    down = _linears(mlp, prefix + "mlp.", ("down_proj",))
    rows = slice(up.out_features - inputs_of(mlp.down_proj), up.out_features)
    yield Fold("up", up, down, rows)


def _norm(block: Any, name: str) -> nn.Module:
    norm: nn.Module = getattr(block, name)
    if not isinstance(getattr(norm, "weight", None), Tensor):
        raise AttributeError(f"{name} has no weight")
    return norm


def _linears(module: Any, prefix: str, *choices: tuple[str, ...]) -> dict[str, nn.Linear]:
    """The first of the choices whose attributes are all there, by full name."""
    for names in choices:
        if all(hasattr(module, name) for name in names):
            layers = {prefix + name: getattr(module, name) for name in names}
            for name, layer in layers.items():
                if not isinstance(layer, nn.Linear):
                    raise ValueError(
                        f"{name} is a {type(layer).__name__}, not nn.Linear: fold the float model, "
                        "before it is quantised"
                    )
            return layers
    raise AttributeError(f"{type(module).__name__} has no {' or '.join(choices[-1])}")


@contextmanager
def same_function(model: nn.Module, rows: Tensor, folds: Sequence[Fold]) -> Iterator[None]:
    """Raise ValueError where the folds applied inside change the model's logits on ``rows`` (B, T).

    Attribute names can lie: a norm that is not followed by these layers alone, a gate after the
    values. On any error inside, the folds are undone.
    """
    with calibrating(model):
        before = run(model, rows).float()
    try:
        yield
        with calibrating(model):
            change = float((run(model, rows).float() - before).abs().max())
        largest = float(before.abs().max())
        sixteen = next(model.parameters()).dtype in (torch.float16, torch.bfloat16)
        if not change <= (0.1 if sixteen else 1e-3) * max(1.0, largest):
            raise ValueError(
                f"folding changed the logits by up to {change:.3g} (the largest is {largest:.3g}): "
                "this model's norms or attention are not Llama's; use method='gptq'"
            )
    except BaseException:
        for fold in folds:
            fold.undo()
        raise
