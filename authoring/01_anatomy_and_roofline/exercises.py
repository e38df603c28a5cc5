# %% [markdown]
# # Exercises: anatomy and roofline
# Eight exercises, about 75 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("anatomy.rms_norm")` works in any cell.
#
# Your functions need torch, math and the standard library.

# %%
import math
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Count the parameters of a config
# A Llama-like decoder: an embedding table, layers, a last norm, a head. Each layer has the
# projections q, k, v and o, a gated MLP of three matrices (gate, up, down) and two RMSNorms with one
# gain a channel. Nothing has a bias.
#
# - **In**: `config`, a dict with the field names of Hugging Face's `config.json`. Always there:
#   `vocab_size`, `hidden_size`, `intermediate_size`, `num_hidden_layers`, `num_attention_heads`.
#   Sometimes missing: `num_key_value_heads` (then there are as many as query heads), `head_dim`
#   (then `hidden_size // num_attention_heads`), `tie_word_embeddings` (then false).
# - **Out**: an int, the number of trained values.
# - **Example**: `vocab_size` 8, `hidden_size` 4, `intermediate_size` 6, 1 layer, 2 heads: table 32,
#   head 32, attention 64, MLP 72, norms 12, together 212.
# - **Must hold**: every trained value is counted once.


# %%
@exercise("anatomy.parameter_count")
def parameter_count(config: dict[str, int]) -> int:
    """Number of trained values of a Llama-like decoder."""
    ### BEGIN SOLUTION
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    kv_heads = config.get("num_key_value_heads", heads)
    head_dim = config.get("head_dim", width // heads)

    query_and_output = 2 * width * heads * head_dim
    key_and_value = 2 * width * kv_heads * head_dim
    mlp = 3 * width * config["intermediate_size"]
    norms = 2 * width
    body = layers * (query_and_output + key_and_value + mlp + norms) + width

    tables = 1 if config.get("tie_word_embeddings", False) else 2
    return body + tables * config["vocab_size"] * width
    ### END SOLUTION


# %% [markdown]
# ## 2. RMSNorm by hand
# Each token's vector is scaled so that the mean of its squares is 1, then each channel is
# multiplied by its gain: $y = w \cdot x / \sqrt{\mathrm{mean}(x^2) + \varepsilon}$.
#
# - **In**: `x`, float32 `(tokens, channels)`; `weight`, float32 `(channels,)`; `eps`, a small float.
# - **Out**: float32 `(tokens, channels)`.
# - **Example**: `x = [[1.0, 7.0]]`, weight 1: mean square 25, root 5, answer `[[0.2, 1.4]]`.
# - **Must hold**: a zero vector stays zero, and no token changes another's result.


# %%
@exercise("anatomy.rms_norm")
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """(tokens, channels) -> (tokens, channels), each token's root mean square made 1."""
    ### BEGIN SOLUTION
    channels = x.shape[-1]
    lengths = torch.linalg.vector_norm(x, dim=-1)  # (tokens,)
    mean_squares = lengths**2 / channels
    factors = 1.0 / torch.sqrt(mean_squares + eps)
    return torch.einsum("tc,t,c->tc", x, factors, weight)
    ### END SOLUTION


# %% [markdown]
# ## 3. Rotary position embedding by hand
# RoPE turns pairs of values by an angle that grows with the position. With `half = head_dim / 2`,
# pair $i$ is `(x[i], x[i + half])` for $i = 0 \dots$ `half - 1` (Hugging Face's half-split
# convention), and its angle at position $t$ is $t \cdot \theta^{-2i/\mathrm{head\_dim}}$ radians. A
# pair $(a, b)$ becomes $(a\cos - b\sin,\; a\sin + b\cos)$.
#
# - **In**: `x`, float32 `(heads, tokens, head_dim)`, `head_dim` even; `positions`, int64
#   `(tokens,)`, which need not begin at 0; `theta`, a float such as 10000.
# - **Out**: float32, the shape of `x`.
# - **Example**: `x = [[[1.0, 0.0]]]` at position 1: the angle is 1 radian, whatever theta is:
#   `[[[0.5403, 0.8415]]]`.
# - **Must hold**: every pair keeps its length; the product of a query at position 7 with a key at
#   position 5 is that of positions 2 and 0.


# %%
@exercise("anatomy.apply_rope")
def apply_rope(x: Tensor, positions: Tensor, theta: float) -> Tensor:
    """(heads, tokens, head_dim) queries or keys, each pair turned by its position's angle."""
    ### BEGIN SOLUTION
    head_dim = x.shape[-1]
    half = head_dim // 2
    turned = torch.empty_like(x)
    for i in range(half):
        angles = positions.float() * theta ** (-2 * i / head_dim)  # (tokens,)
        cos, sin = torch.cos(angles), torch.sin(angles)
        a, b = x[:, :, i], x[:, :, i + half]  # (heads, tokens)
        turned[:, :, i] = a * cos - b * sin
        turned[:, :, i + half] = a * sin + b * cos
    return turned
    ### END SOLUTION


# %% [markdown]
# ## 4. Bytes read to decode one token
# One new token at batch 1 makes the memory deliver every weight that it multiplies with, and every
# cached key and value. Count as the lesson does:
#
# - the matrices inside the layers (q, k, v, o, gate, up, down) have `bits_per_weight` bits a weight;
# - head, embedding and norms stay in 16 bit;
# - the head is read whole; of the embedding table one row is read, which counts only where the
#   tables are not tied (a tied table is read already, as the head);
# - each of the `context` cached tokens has one key and one value of `head_dim` numbers for each KV
#   head of each layer, `kv_value_bytes` bytes a number. What the new token writes is not counted.
#
# **In**: `config` as in exercise 1 (two norms a layer and one last norm, each `hidden_size` long);
# `bits_per_weight`, such as 4.5; `context`, an int of 0 or more; `kv_value_bytes`, 1, 2 or 4.
# **Out**: a number of bytes.
#
# **Example**: `vocab_size` 40, `hidden_size` 64, `intermediate_size` 96, 1 layer, 2 heads, 8.5 bits,
# context 0: 34,816 weights in 36,992 bytes, and (2,560 head + 64 row + 192 norms) * 2 = 5,632
# bytes, together 42,624. With 10 cached tokens of 2-byte values 2,560 bytes more.
#
# **Must hold**: each cached token adds the same number of bytes.


# %%
@exercise("anatomy.bytes_per_token")
def bytes_per_token(
    config: dict[str, int], bits_per_weight: float, context: int, kv_value_bytes: int
) -> float:
    """Bytes that memory delivers to decode one token at batch 1."""
    ### BEGIN SOLUTION
    width, layers = config["hidden_size"], config["num_hidden_layers"]
    heads = config["num_attention_heads"]
    head_dim = config.get("head_dim", width // heads)
    query_width = heads * head_dim
    kv_width = config.get("num_key_value_heads", heads) * head_dim

    matrices = 2 * width * (query_width + kv_width) + 3 * width * config["intermediate_size"]
    layer_bytes = matrices * bits_per_weight / 8 + 2 * width * 2
    cache_bytes = 2 * context * kv_width * kv_value_bytes

    head_bytes = config["vocab_size"] * width * 2
    row_bytes = 0 if config.get("tie_word_embeddings", False) else width * 2
    return layers * (layer_bytes + cache_bytes) + width * 2 + head_bytes + row_bytes
    ### END SOLUTION


# %% [markdown]
# ## 5. Arithmetic intensity and the ridge
# A matmul multiplies `m` rows of inputs, `(m, k)`, by weights `(k, n)`. A multiply-add counts as two
# FLOP. The bytes moved are the weights once, the inputs once and the outputs once.
#
# - **In**: ints `m`, `k`, `n`; `weight_bits`, bits a weight; `activation_bytes`, bytes of one input
#   or output; `bandwidth_gb_s` in GB/s; `peak_gflop_s` in GFLOP/s.
# - **Out**: a dict of three numbers. `"flop_per_byte"`: the intensity of this matmul. `"ridge"`:
#   the intensity at which the device computes exactly as long as it reads. `"batch"`: the number of
#   rows, a float, at which this matmul's intensity is the ridge; `math.inf` where no number of rows
#   is enough.
# - **Example**: `m` 1, `k` = `n` = 64, 16 bits, 2 bytes, 10 GB/s, 40 GFLOP/s gives
#   `{"flop_per_byte": 0.9697, "ridge": 4.0, "batch": 4.5714}`.
# - **Must hold**: the same matmul with `"batch"` rows has the intensity `"ridge"`.


# %%
@exercise("anatomy.arithmetic_intensity")
def arithmetic_intensity(
    m: int,
    k: int,
    n: int,
    weight_bits: float,
    activation_bytes: float,
    bandwidth_gb_s: float,
    peak_gflop_s: float,
) -> dict[str, float]:
    """FLOP a byte of (m, k) x (k, n), the device's ridge, and the rows that reach it."""
    ### BEGIN SOLUTION
    weight_bytes = k * n * weight_bits / 8
    moved = weight_bytes + (m * k + m * n) * activation_bytes
    intensity = 2 * m * k * n / moved

    # In nanoseconds: the weights cost once, each row gains what it computes beyond its own traffic.
    weights_ns = weight_bytes / bandwidth_gb_s
    row_gain_ns = 2 * k * n / peak_gflop_s - (k + n) * activation_bytes / bandwidth_gb_s
    batch = weights_ns / row_gain_ns if row_gain_ns > 0 else math.inf
    return {"flop_per_byte": intensity, "ridge": peak_gflop_s / bandwidth_gb_s, "batch": batch}
    ### END SOLUTION


# %% [markdown]
# ## 6. Repair this: top-p that keeps too little
# Top-p (nucleus) sampling keeps the smallest set of most likely tokens whose probabilities sum to at
# least `p`, and shares the mass out among them. The code below runs, looks right, and is not. Look
# at what it does to three tokens.


# %%
def top_p_as_found(logits: Tensor, p: float, temperature: float) -> Tensor:
    probabilities = torch.softmax(logits / temperature, dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True)
    keep = ordered.cumsum(dim=-1) <= p
    kept = torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
    return kept / kept.sum(dim=-1, keepdim=True)


three_tokens = torch.tensor([[0.2, 0.5, 0.3]]).log()
for p in (0.7, 0.4):
    print(f"p = {p}: {top_p_as_found(three_tokens, p, 1.0).tolist()}")

# %% [markdown]
# At 0.7 one token is left, with a mass of 0.5 before scaling; at 0.4 nothing is left. Copy the body
# into the blank and mend it.
#
# - **In**: `logits`, float32 `(rows, vocabulary)`; `p`, above 0 and below 1; `temperature`, above 0,
#   applied before the filter.
# - **Out**: float32 `(rows, vocabulary)`, the distribution to sample from.
# - **Example**: the three tokens above with `p` 0.7 give `[[0.0, 0.625, 0.375]]`.
# - **Must hold**: the kept mass is at least `p`, without the last kept token it is less, and each
#   row sums to 1.


# %%
@exercise("anatomy.top_p_repair")
def top_p(logits: Tensor, p: float, temperature: float) -> Tensor:
    """The nucleus of each row, shared out: (rows, vocabulary)."""
    ### BEGIN SOLUTION
    probabilities = torch.softmax(logits / temperature, dim=-1)
    ordered, order = probabilities.sort(dim=-1, descending=True)
    running = ordered.cumsum(dim=-1)
    # The token that crosses p stays: what decides is the sum up to its predecessor.
    keep = torch.ones_like(ordered, dtype=torch.bool)
    keep[:, 1:] = running[:, :-1] < p
    kept = torch.zeros_like(probabilities).scatter(-1, order, ordered * keep)
    return kept / kept.sum(dim=-1, keepdim=True)
    ### END SOLUTION


# %% [markdown]
# ## 7. On paper: the decode ceiling of a phone
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | datasheet | |
# |---|---|
# | parameters, all of them read for each token | 1.24e9 |
# | bits a weight, scales included | 4.5 |
# | layers | 16 |
# | query heads / KV heads | 32 / 8 |
# | head_dim | 64 |
# | tokens in the KV cache, fp16 | 8,192 |
# | memory bandwidth | 50 GB/s (1 GB = 10**9 bytes) |
#
# - **Out**: one number, the most tokens a second that decoding at batch 1 can reach. It passes
#   within 3%.
# - **Example**: 0.5e9 parameters at 8 bits and no cache on 20 GB/s: 20 / 0.5 = 40 tokens a second.
# - **Must hold**: bandwidth = tokens a second times bytes a token.


# %%
@exercise("anatomy.decode_ceiling")
def decode_ceiling() -> float:
    """Tokens a second, at most, from the datasheet above."""
    ### BEGIN SOLUTION
    weights_gb = 1.24 * 4.5 / 8
    cache_gb = 2 * 16 * 8 * 64 * 2 * 8192 / 1e9
    return 50 / (weights_gb + cache_gb)
    ### END SOLUTION


# %% [markdown]
# ## 8. Decide: which scheme goes on this device
# A product needs a context and a speed; a device has memory and bandwidth; a table says what each
# quantisation scheme costs. Choose. You are scored by outcome: any choice that meets both budgets
# and is beaten by none is right.
#
# - **In**: `device`, a dict with `"memory_gb"` and `"bandwidth_gb_s"` (1 GB = 10**9 bytes);
#   `model`, a dict with `"parameters"`, `"num_hidden_layers"`, `"num_key_value_heads"` and
#   `"head_dim"`; `schemes`, name -> (bits a weight, quality loss); `context`, tokens in the fp16 KV
#   cache; `tokens_per_second`, the least speed.
# - **Count so**: all weights and the whole cache lie in memory together, and each token reads all
#   of them once at full bandwidth.
# - **Out**: the name of the scheme with the least quality loss among those that meet both budgets,
#   or `None` where none does.
# - **Example**: 0.8e9 parameters, 12 layers, 4 KV heads of 128, context 1,000, 0.6 GB, 50 GB/s, 80
#   tokens a second; int8 (8.5 bits, loss 0.01) needs 0.8746 GB, int4 (4.5 bits, loss 0.05) 0.4746:
#   `"int4"`.
# - **Must hold**: every scheme that loses less than your choice breaks a budget.


# %%
@exercise("anatomy.choose_deployment")
def choose_deployment(
    device: dict[str, float],
    model: dict[str, float],
    schemes: dict[str, tuple[float, float]],
    context: int,
    tokens_per_second: float,
) -> str | None:
    """Name of the scheme to ship, None where none meets both budgets."""
    ### BEGIN SOLUTION
    kv_width = model["num_key_value_heads"] * model["head_dim"]
    cache_gb = 2 * model["num_hidden_layers"] * kv_width * 2 * context / 1e9
    best, least_loss = None, math.inf
    for name, (bits, loss) in schemes.items():
        size_gb = model["parameters"] * bits / 8 / 1e9 + cache_gb
        fits = size_gb <= device["memory_gb"]
        fast = device["bandwidth_gb_s"] / size_gb >= tokens_per_second
        if fits and fast and loss < least_loss:
            best, least_loss = name, loss
    return best
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `anatomy.rms_norm`, and run the next cell.
# The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
