# %% [markdown]
# # Exercises: integers, groups, code books
# Eight exercises, about 80 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("quantization.absmax_int8")` works in any cell.
#
# Your functions need torch, math and the standard library. A weight matrix is `(out, in)`: each row
# makes one output.

# %%
import math
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch
from torch import Tensor

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Absmax INT8, one scale a row
# A row's largest magnitude, its amax, becomes the code 127 or -127. The step between two codes is
# the row's scale, amax / 127. Each weight gets the nearest code.
#
# - **In**: `w`, float32 `(out, in)`; a row may be all zeros.
# - **Out**: a pair. `codes`, int8 `(out, in)`, in -127 .. 127; `scales`, float32 `(out,)`, 1 for a
#   row of zeros.
# - **Example**: `w = [[2.0, -1.0, 0.5]]` gives `([[127, -64, 32]], [0.015748])`.
# - **Must hold**: `codes * scale` is off by at most half a scale.


# %%
@exercise("quantization.absmax_int8")
def absmax_int8(w: Tensor) -> tuple[Tensor, Tensor]:
    """(out, in) float32 -> codes (out, in) int8, scales (out,) float32."""
    ### BEGIN SOLUTION
    amax = torch.linalg.vector_norm(w, ord=math.inf, dim=1)  # (out,)
    scales = amax / 127
    scales[amax == 0] = 1.0
    steps = torch.round(w / scales.unsqueeze(1))
    codes = torch.clamp(steps, -127, 127).to(torch.int8)
    return codes, scales
    ### END SOLUTION


# %% [markdown]
# ## 2. Affine INT8, with a zero point
# A row from -0.5 to 2.0 wastes three quarters of the negative codes. So let the codes -128 .. 127
# cover exactly the range from low to high. The code that stands for 0 is then no longer 0: it is the
# **zero point**.
#
# $$\mathrm{scale} = \frac{\mathrm{high} - \mathrm{low}}{255} \qquad
# \mathrm{zero\_point} = -128 - \mathrm{round}\left(\frac{\mathrm{low}}{\mathrm{scale}}\right) \qquad
# \mathrm{code} = \mathrm{round}\left(\frac{w}{\mathrm{scale}}\right) + \mathrm{zero\_point}$$
#
# Where all weights of a row have one sign, the range is widened to hold 0, so that 0 stays exact.
#
# - **In**: `w`, float32 `(out, in)`; a row may be all zeros.
# - **Out**: `codes`, int8 `(out, in)`; `scales`, float32 `(out,)`, 1 for a row of zeros;
#   `zero_points`, int8 `(out,)`. Round as torch does, ties to even.
# - **Example**: `w = [[-0.5, 0.0, 2.0]]` gives `([[-128, -77, 127]], [0.0098039], [-77])`.
# - **Must hold**: a weight of 0 gets the zero point as its code; every code fits int8.


# %%
@exercise("quantization.affine_int8")
def affine_int8(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(out, in) float32 -> codes (out, in) int8, scales (out,), zero_points (out,) int8."""
    ### BEGIN SOLUTION
    with_zero = torch.cat((w, torch.zeros(w.shape[0], 1)), dim=1)
    low = with_zero.min(dim=1, keepdim=True).values  # (out, 1)
    high = with_zero.max(dim=1, keepdim=True).values
    scales = (high - low) / 255
    scales = scales + (scales == 0)
    zero_points = -128 - torch.round(low / scales)
    codes = torch.clamp(torch.round(w / scales) + zero_points, -128, 127)
    return codes.to(torch.int8), scales.squeeze(1), zero_points.squeeze(1).to(torch.int8)
    ### END SOLUTION


# %% [markdown]
# ## 3. Pack INT4, two codes a byte
# torch has no 4-bit type that it can compute with, so two codes share a byte. The even column lies
# in the low nibble (the lower four bits), its odd neighbour in the high one. A negative code is kept
# in two's complement: -1 is 1111, -8 is 1000.
#
# - **In**: `codes`, int8 `(rows, columns)`, each in -8 .. 7.
# - **Out**: uint8 `(rows, ceil(columns / 2))`. Where the number of columns is odd, the last high
#   nibble is 0.
# - **Example**: `[[3, -1, 2]]` gives `[[243, 2]]`: 243 is 1111 0011.
# - **Must hold**: every code can be read back from its nibble.


# %%
@exercise("quantization.pack_int4")
def pack_int4(codes: Tensor) -> Tensor:
    """(rows, columns) int8 in -8 .. 7 -> (rows, ceil(columns / 2)) uint8."""
    ### BEGIN SOLUTION
    rows, columns = codes.shape
    nibbles = torch.zeros(rows, columns + columns % 2, dtype=torch.uint8)
    nibbles[:, :columns] = codes.remainder(16).to(torch.uint8)
    low, high = nibbles[:, 0::2], nibbles[:, 1::2]
    return low + 16 * high
    ### END SOLUTION


# %% [markdown]
# ## 4. On paper: the size of a 4-bit file
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | checkpoint | |
# |---|---|
# | weights in linear layers | 106.2e6 |
# | their codes | 4 bits |
# | group | 16 weights of a row |
# | each group stores | a 16-bit scale and a 4-bit zero point |
# | embedding table, tied to the head | 28.3e6 weights in 16 bits |
#
# - **Out**: one number, the size of the file in MB (10**6 bytes). Norms and the header are too small
#   to matter. It passes within 1%.
# - **Example**: 1e6 weights in 2-bit codes, groups of 50 with a 16-bit scale and a 2-bit zero point,
#   and a 16-bit table of 1e4: 0.315 MB.
# - **Must hold**: every bit is counted once.


# %%
@exercise("quantization.file_size")
def file_size() -> float:
    """Megabytes of the checkpoint above."""
    ### BEGIN SOLUTION
    bits_a_weight = 4 + (16 + 4) / 16
    layers_mb = 106.2 * bits_a_weight / 8
    table_mb = 28.3 * 2
    return layers_mb + table_mb
    ### END SOLUTION


# %% [markdown]
# ## 5. The NF4 code book
# Trained weights lie roughly normally around 0, so evenly spaced levels waste codes at the ends.
# NF4 (Dettmers et al. 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314), section 3) puts
# its sixteen levels at quantiles of the standard normal distribution. It has eight positive levels,
# seven negative ones and an exact zero:
#
# - eight probabilities, evenly spaced, from `tail` down towards 1/2 and without 1/2
#   (`linspace(tail, 0.5, 9)` without its last); their quantiles are the positive levels;
# - seven probabilities in the same way (`linspace(tail, 0.5, 8)` without its last); minus their
#   quantiles are the negative levels;
# - zero; and all are divided by the largest, so that they reach from -1 to 1.
#
# `tail` is 0.9677083. `torch.special.ndtri(p)` gives the quantile of a probability.
#
# - **Out**: float32 `(16,)`, rising.
# - **Example**: two positive levels, one negative, `tail` 0.9: `[-1.0, 0.0, 0.4092, 1.0]`.
# - **Must hold**: sixteen different levels, one of them exactly 0.


# %%
@exercise("quantization.nf4_levels")
def nf4_levels() -> Tensor:
    """(16,) float32: the levels of NF4, from -1 to 1."""
    ### BEGIN SOLUTION
    tail = 0.9677083
    levels = [0.0]
    for sign, count in ((1.0, 8), (-1.0, 7)):
        for k in range(count):
            probability = tail - k * (tail - 0.5) / count
            quantile = torch.special.ndtri(torch.tensor(probability, dtype=torch.float64))
            levels.append(sign * quantile.item())
    rising = torch.tensor(sorted(levels))
    return rising / rising[-1]
    ### END SOLUTION


# %% [markdown]
# ## 6. Quantise to a code book
# A code book format stores, for each weight, the place of the level nearest to weight / absmax,
# where absmax is the largest magnitude of its group. Groups run along the row: columns 0 ..
# `group_size` - 1 are the first.
#
# - **In**: `w`, float32 `(out, in)`; `levels`, float32 `(16,)`, rising from -1 to 1, one of them 0;
#   `group_size`, an int that divides `in`. A group may be all zeros.
# - **Out**: `codes`, int8 `(out, in)`, the places 0 .. 15; `absmax`, float32
#   `(out, in / group_size)`, 0 for a group of zeros, whose codes all stand for 0.
# - **Example**: with four levels `[-1.0, 0.0, 0.4, 1.0]`, the group `[2.0, -0.9, 0.3]` has the absmax
#   2.0 and the codes `[3, 1, 1]`.
# - **Must hold**: no other level times absmax lies nearer to a weight.


# %%
@exercise("quantization.nf4_codes")
def nf4_codes(w: Tensor, levels: Tensor, group_size: int) -> tuple[Tensor, Tensor]:
    """(out, in) -> codes (out, in) int8, absmax (out, in / group_size) float32."""
    ### BEGIN SOLUTION
    rows, columns = w.shape
    groups = w.reshape(rows, columns // group_size, group_size)
    absmax = groups.abs().max(dim=2).values
    divisor = torch.where(absmax > 0, absmax, torch.ones_like(absmax))
    x = (groups / divisor.unsqueeze(2)).reshape(-1, 1)
    distances = torch.cdist(x, levels.reshape(-1, 1), p=1.0)  # (weights, 16)
    codes = distances.argmin(dim=1).reshape(rows, columns)
    return codes.to(torch.int8), absmax
    ### END SOLUTION


# %% [markdown]
# ## 7. Repair this: nibbles in the wrong order
# This reads packed INT4 back. It runs, gives the right number of codes, and each byte's two codes
# are really in it. Look at four codes.


# %%
def unpack_as_found(packed: Tensor, columns: int) -> Tensor:
    nibbles = torch.stack((packed & 15, packed >> 4), dim=-1).to(torch.int8)  # (rows, bytes, 2)
    nibbles[:, 1::2] = nibbles[:, 1::2].flip(-1)
    codes = torch.where(nibbles > 7, nibbles - 16, nibbles).flatten(1)
    return codes[:, :columns]


one_to_four = torch.tensor([[1 + 16 * 2, 3 + 16 * 4]], dtype=torch.uint8)
print("the codes 1, 2, 3, 4 come back as", unpack_as_found(one_to_four, 4).tolist()[0])

# %% [markdown]
# A reader that assumes one order and gets a file in another runs without an error. Write it for the
# order of exercise 3.
#
# - **In**: `packed`, uint8 `(rows, ceil(columns / 2))`, low nibble first, two's complement;
#   `columns`, an int.
# - **Out**: int8 `(rows, columns)`, each in -8 .. 7.
# - **Example**: `[[243, 2]]` with 3 columns gives `[[3, -1, 2]]`.
# - **Must hold**: unpacking what was packed gives the codes back, for every matrix.


# %%
@exercise("quantization.unpack_repair")
def unpack_int4(packed: Tensor, columns: int) -> Tensor:
    """(rows, bytes) uint8 -> (rows, columns) int8 in -8 .. 7."""
    ### BEGIN SOLUTION
    codes = torch.zeros(packed.shape[0], 2 * packed.shape[1], dtype=torch.int16)
    codes[:, 0::2] = packed.to(torch.int16) % 16
    codes[:, 1::2] = packed.to(torch.int16) // 16
    codes[codes > 7] -= 16
    return codes[:, :columns].to(torch.int8)
    ### END SOLUTION


# %% [markdown]
# ## 8. Decide: a group size under a byte budget
# A matrix goes into symmetric 4-bit codes, one fp16 scale a group. Smaller groups store more scales.
# The budget is in bytes. Choose the group size. You are scored by outcome: any choice that fits and
# whose error is within 5% of the best that fits is right.
#
# - **In**: `w`, float32 `(out, in)`; `group_sizes`, ints; `budget_bytes`, an int.
# - **Count so**: each row packs two codes a byte and ends on a whole byte; each group stores a
#   2-byte scale, and where the size does not divide the row, so does the short group at its end.
#   A group's scale is amax / 7; its codes are round(w / scale); the error is the sum of squared
#   differences over the whole matrix. Scales in float32 are exact enough here.
# - **Out**: the group size with the least error among those that fit, or `None` where none does.
# - **Example**: `w = [[3.0, 1.3, 0.2, 0.1]]`, sizes `[4, 2]`: 4 takes 4 bytes, 2 takes 6. With 5
#   bytes, `4`.
# - **Must hold**: every size with a smaller error breaks the budget.


# %%
@exercise("quantization.choose_group")
def choose_group(w: Tensor, group_sizes: list[int], budget_bytes: int) -> int | None:
    """The group size to ship, None where none fits."""
    ### BEGIN SOLUTION
    rows, columns = w.shape
    best, least = None, math.inf
    for size in group_sizes:
        groups = -(-columns // size)
        if rows * ((columns + 1) // 2) + rows * groups * 2 > budget_bytes:
            continue
        padded = torch.nn.functional.pad(w, (0, groups * size - columns))
        grouped = padded.reshape(rows, groups, size)
        scales = grouped.abs().amax(dim=2, keepdim=True) / 7
        scales = torch.where(scales == 0, torch.ones_like(scales), scales)
        back = torch.round(grouped / scales) * scales
        error = (back - grouped).square().sum().item()
        if error < least:
            best, least = size, error
    return best
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `quantization.pack_int4`, and run the next
# cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
