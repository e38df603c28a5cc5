# %% [markdown]
# # Exercises: the KV cache
# Seven exercises, about 70 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("kv.bytes")` works in any cell.
#
# Your functions need torch, math and the standard library. Keys and values of one head are
# `(tokens, head_dim)`: each row belongs to one token.

# %%
import math
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Size a cache: grouped queries, windows, bits
# The sum that interviewers ask for. A layer keeps keys and values of every token. Count
# `min(tokens, window)` tokens for a layer with a window: the newest query's whole view, itself
# included.
#
# - **In**: `config`, a dict with `num_attention_heads`, `num_key_value_heads`, `head_dim` and
#   `windows`, a list with one entry a layer: `None` for all tokens, else an int. `tokens` a sequence
#   has so far, `batch` sequences, `bits` of a stored number (no scales).
# - **Out**: bytes, an int.
# - **Example**: 4 query heads, 2 KV heads of 8, windows `[None, 3]`, 5 tokens, batch 1, 16 bits:
#   `512`.
# - **Must hold**: once every window is full, one token more adds bytes in the other layers alone.


# %%
@exercise("kv.bytes")
def cache_bytes(config: dict, tokens: int, batch: int, bits: int) -> int:
    """Bytes of the keys and values of `batch` sequences of `tokens` tokens."""
    ### BEGIN SOLUTION
    kept = 0
    for window in config["windows"]:
        kept += tokens if window is None else min(tokens, window)
    numbers = 2 * kept * config["num_key_value_heads"] * config["head_dim"] * batch
    return numbers * bits // 8
    ### END SOLUTION


# %% [markdown]
# ## 2. On paper: the context that still fits
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | device and model | |
# |---|---|
# | memory for weights and cache | 4 GB of 10**9 bytes |
# | weights | 3.21e9, at 4.5 bits each |
# | layers | 28 |
# | query heads, KV heads, head_dim | 24, 8, 128 |
# | cache | 16 bits a number |
# | conversations side by side | 4, equally long |
#
# - **Out**: one number, the tokens that each conversation can hold. It passes within 3%.
# - **Example**: 1 GB, 1e9 weights of 4 bits, 10 layers, 4 KV heads of 64, 2 conversations: 24,414.
# - **Must hold**: one token more, in every conversation, and it is full.


# %%
@exercise("kv.context_fits")
def context_fits() -> float:
    """Tokens a conversation on the device above."""
    ### BEGIN SOLUTION
    left = 4e9 - 3.21e9 * 4.5 / 8
    a_token = 2 * 28 * 8 * 128 * 2
    return left / (4 * a_token)
    ### END SOLUTION


# %% [markdown]
# ## 3. Repair this: a cache that copies itself every step
# This keeps the rows of every token so far, and counts how many rows it has written. It is how
# caches were written first, and how many still are: `torch.cat` with the new row. Look at the count.


# %%
def grow_as_found(chunks: list[Tensor], capacity: int) -> tuple[Tensor, int]:
    held, written = chunks[0][:0], 0
    for chunk in chunks:
        held = torch.cat((held, chunk))
        written += held.shape[0]
    return held, written


print("rows written for 100 tokens:", grow_as_found([torch.ones(1, 2)] * 100, 8)[1])

# %% [markdown]
# A serving engine reserves room for the longest text it allows. Where you cannot know that, let the
# buffer double: start with `capacity` empty rows; where a chunk does not fit, double the capacity,
# again until it fits, and move the rows that are held into the new buffer.
#
# - **In**: `chunks`, a list of float32 `(rows, head_dim)`, each with at least one row; `capacity`, an
#   int of at least 1.
# - **Out**: all rows in order, `(total, head_dim)`, and the rows written: new ones and moved ones.
# - **Example**: chunks of 2, 1 and 1 rows, capacity 2: 2 + (2 + 1) + 1 = `6`. As found: `9`.
# - **Must hold**: fewer than three times as many rows are written as there are. The check cannot see
#   your buffer and trusts your count: count what your code writes.


# %%
@exercise("kv.concat_repair")
def grow(chunks: list[Tensor], capacity: int) -> tuple[Tensor, int]:
    """[(rows, head_dim)] -> (total, head_dim), rows written."""
    ### BEGIN SOLUTION
    width = chunks[0].shape[1]
    buffer, held, written = torch.empty(capacity, width), 0, 0
    for chunk in chunks:
        needed = held + chunk.shape[0]
        if needed > capacity:
            while needed > capacity:
                capacity *= 2
            larger = torch.empty(capacity, width)
            larger[:held] = buffer[:held]
            buffer, written = larger, written + held
        buffer[held:needed] = chunk
        held, written = needed, written + chunk.shape[0]
    return buffer[:held].clone(), written
    ### END SOLUTION


# %% [markdown]
# ## 4. Repair this: positions after a rewind
# Speculative decoding feeds tokens that may be rejected and then takes them back: `truncate`. This
# session keeps the tokens in its cache and the position that each was given. It is right until the
# first rewind.


# %%
def replay_as_found(trace: list) -> tuple[list[int], list[int]]:
    tokens, positions, seen = [], [], 0
    for operation, what in trace:
        if operation == "append":
            tokens += what
            positions += range(seen, seen + len(what))
            seen += len(what)
        else:
            del tokens[what:], positions[what:]
    return tokens, positions


print(replay_as_found([("append", [7, 8, 9]), ("truncate", 1), ("append", [5])]))

# %% [markdown]
# - **In**: `trace`, a list of pairs: `("append", [token, ...])` or `("truncate", n)`, which keeps the
#   first `n` tokens.
# - **Out**: the tokens in the cache at the end, and the position of each: two lists of ints.
# - **Example**: `[("append", [7, 8, 9]), ("truncate", 1), ("append", [5])]` gives
#   `([7, 5], [0, 1])`.
# - **Must hold**: a forward pass over the tokens alone, without a cache, gives them these positions.


# %%
@exercise("kv.rewind_repair")
def replay(trace: list) -> tuple[list[int], list[int]]:
    """Operations -> tokens held, position of each."""
    ### BEGIN SOLUTION
    tokens, positions = [], []
    for operation, what in trace:
        if operation == "append":
            for token in what:
                positions.append(len(tokens))
                tokens.append(token)
        else:
            tokens, positions = tokens[:what], positions[:what]
    return tokens, positions
    ### END SOLUTION


# %% [markdown]
# ## 5. Repair this: a window that forgets too early
# One head with a sliding window: a query sees itself and the `window - 1` tokens before it. The
# text comes in chunks, a long prompt first, and the cache keeps what the window needs. Token by
# token it is right. The values below are 10, 20, 40 and all scores are equal, so each output is the
# mean of what was seen.


# %%
def windowed_as_found(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    outputs, start, keys, values = [], 0, k[:0], v[:0]
    for size in chunks:
        end = start + size
        keys = torch.cat((keys, k[start:end]))[-window:]
        values = torch.cat((values, v[start:end]))[-window:]
        query_at, key_at = torch.arange(start, end)[:, None], torch.arange(end - len(keys), end)
        seen = (key_at <= query_at) & (key_at > query_at - window)  # (chunk, keys)
        scores = (q[start:end] @ keys.T / math.sqrt(q.shape[1])).masked_fill(~seen, -math.inf)
        outputs.append(scores.softmax(dim=-1) @ values)
        start = end
    return torch.cat(outputs)


three, zeros = torch.tensor([[10.0], [20.0], [40.0]]), torch.zeros(3, 1)
for chunks in ([1, 1, 1], [1, 2]):
    print(chunks, windowed_as_found(zeros, zeros, three, chunks, window=2).flatten().tolist())

# %% [markdown]
# - **In**: `q`, `k`, `v`, float32 `(tokens, head_dim)`; `chunks`, the sizes in which they arrive,
#   whose sum is `tokens`; `window`, at least 2. Scores are `q k / sqrt(head_dim)`.
# - **Out**: float32 `(tokens, head_dim)`.
# - **Example**: the values 10, 20, 40 above with window 2 give `[[10], [15], [30]]` in any chunks.
# - **Must hold**: the outputs do not depend on how the text is cut.


# %%
@exercise("kv.window_repair")
def windowed(q: Tensor, k: Tensor, v: Tensor, chunks: list[int], window: int) -> Tensor:
    """(tokens, head_dim) each -> (tokens, head_dim)."""
    ### BEGIN SOLUTION
    outputs, start, keys, values = [], 0, k[:0], v[:0]
    for size in chunks:
        end = start + size
        keys = torch.cat((keys, k[start:end]))
        values = torch.cat((values, v[start:end]))
        query_at, key_at = torch.arange(start, end)[:, None], torch.arange(end - len(keys), end)
        seen = (key_at <= query_at) & (key_at > query_at - window)  # (chunk, keys)
        scores = (q[start:end] @ keys.T / math.sqrt(q.shape[1])).masked_fill(~seen, -math.inf)
        outputs.append(scores.softmax(dim=-1) @ values)
        keys, values = keys[-(window - 1) :], values[-(window - 1) :]
        start = end
    return torch.cat(outputs)
    ### END SOLUTION


# %% [markdown]
# ## 6. Quantise keys per channel, values per token
# KIVI (Liu et al. 2024, [arXiv:2402.02750](https://arxiv.org/abs/2402.02750), section 3) found that a
# few key channels are loud in every token. So keys share a scale along a channel, over the tokens;
# values along a token, over its channels. A channel may lie far from 0, so each group is cut between
# its own minimum and maximum:
#
# $$\mathrm{step} = \frac{\mathrm{high} - \mathrm{low}}{2^{\mathrm{bits}} - 1} \qquad
# \mathrm{code} = \mathrm{round}\left(\frac{x - \mathrm{low}}{\mathrm{step}}\right) \qquad
# \mathrm{back} = \mathrm{code} \cdot \mathrm{step} + \mathrm{low}$$
#
# - **In**: `keys`, `values`, float32 `(tokens, head_dim)`; `bits`, 2, 4 or 8. A group may be
#   constant.
# - **Out**: both as they come back, float32. Steps and minima stay in float32 here.
# - **Example**: `keys = [[30.0], [33.0], [31.0]]` with 2 bits come back as they are; values
#   `[[0.0, 1.0, 3.0]]` too: one group each, steps of 1.
# - **Must hold**: the smallest and largest of a group come back unchanged, nothing is off by more
#   than half a step.


# %%
@exercise("kv.quantize_cache")
def quantize_cache(keys: Tensor, values: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """(tokens, head_dim) each -> what comes back of each."""

    ### BEGIN SOLUTION
    def back(x: Tensor) -> Tensor:
        """(groups, numbers): one row is one group."""
        low = x.min(dim=1, keepdim=True).values
        step = (x.max(dim=1, keepdim=True).values - low) / (2**bits - 1)
        step[step == 0] = 1.0
        return torch.round((x - low) / step) * step + low

    return back(keys.T).T, back(values)
    ### END SOLUTION


# %% [markdown]
# ## 7. Decide: bits for keys, bits for values
# The budget is in bytes. Keys and values may get different bits, 2, 4 or 8 each. You are scored by
# outcome: any pair that fits and changes the attention's output within 10% of the best is right.
#
# - **In**: `q`, float32 `(queries, head_dim)`; `k`, `v`, float32 `(tokens, head_dim)`;
#   `budget_bytes`, an int.
# - **Count so**: `tokens * head_dim * bits / 8` bytes of codes a tensor. Each key channel and each
#   token's values store 4 bytes more: a scale and a minimum in fp16. Quantise as in exercise 6. The
#   output is `softmax(q k^T / sqrt(head_dim)) v`; the error is the sum of its squared changes.
# - **Out**: the pair (bits of keys, bits of values), or `None` where none fits. Keys come first in
#   the pair.
# - **Example**: 4 tokens, head_dim 4: the pair (4, 2) takes 12 bytes of codes and 32 of metadata.
# - **Must hold**: every pair that changes the output less breaks the budget.


# %%
@exercise("kv.choose_bits")
def choose_bits(q: Tensor, k: Tensor, v: Tensor, budget_bytes: int) -> tuple[int, int] | None:
    """(bits of keys, bits of values), None where no pair fits."""

    ### BEGIN SOLUTION
    def back(x: Tensor, bits: int, along: int) -> Tensor:
        low = x.amin(along, keepdim=True)
        step = ((x.amax(along, keepdim=True) - low) / (2**bits - 1)).clamp(min=1e-12)
        return torch.round((x - low) / step) * step + low

    def attend(keys: Tensor, values: Tensor) -> Tensor:
        return (q @ keys.T / math.sqrt(q.shape[1])).softmax(dim=-1) @ values

    (tokens, width), best, least = k.shape, None, math.inf
    for pair in [(a, b) for a in (2, 4, 8) for b in (2, 4, 8)]:
        size = tokens * width * sum(pair) // 8 + 4 * (tokens + width)
        rough = attend(back(k, pair[0], 0), back(v, pair[1], 1))
        error = (rough - attend(k, v)).square().sum().item()
        if size <= budget_bytes and error < least:
            best, least = pair, error
    return best
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `kv.window_repair`, and run the next
# cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
