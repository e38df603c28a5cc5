# %% [markdown]
# # 02 · Quantization: integers, groups, code books
#
# *45 minutes · no GPU, no download · exercises: [02_quantization](../exercises/02_quantization.ipynb)*
#
# ## Four bits a weight. Are they?

# %%
import inspect
import math
import sys
from itertools import pairwise

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.quant import QuantizedLinear, model_bytes, parse_scheme, quantize_model, quantize_tensor

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
half = slmlab.load(dtype=torch.float16).model

# %%
small = quantize_model(half, "int4-g32")
parameters = sum(parameter.numel() for parameter in lm.model.parameters())
promised, real = parameters * 4 / 8, model_bytes(small)
print(f"fp32:                     {model_bytes(lm.model) / 1e6:6.2f} MB")
print(f"its int4 copy:            {real / 1e6:6.2f} MB")
print(f"4 bits a weight would be: {promised / 1e6:6.2f} MB")
print(f"{(real - promised) / 1e6:.2f} MB too many. Who ate {(real - promised) / promised:.0%}?")

# %% [markdown]
# Part of the answer is in the name: `int4-g32` gives each group of 32 weights one number of its
# own, the **scale**. By the end of this lesson you know what a scale buys, when it stops paying, and
# what the bytes do to quality and speed.
#
# First commit yourself. With fewer groups there are fewer scales; with one scale a row nearly none.
# Two facts for a guess. The largest weight that shares a scale sets the step between codes, and the
# more weights share it, the further out the largest lies: the next cell prints how far, for normal
# values. And the damage grows with the square of the step. We measure it as how far the next-token
# probabilities move: the **KL divergence**, in nats; 0 is no change.
#
# Replace `None` by your number. You can leave it: the lesson then goes on without a score.


# %%
def largest_of(count):
    """Largest magnitude of `count` normal values, in standard deviations: its median."""
    # It lies below x with probability P(|w| < x) ** count.
    return torch.special.ndtri(torch.tensor((1 + 0.5 ** (1 / count)) / 2)).item()


for count in (32, lm.model.config.hidden_size):
    print(
        f"{count:4} values share a scale: the largest at {largest_of(count):.2f} standard deviations"
    )
predict("KL of int4 with one scale a row, over groups of 32", None, unit="times")

# %% [markdown]
# ## Who ate the difference

# %%
import matplotlib.pyplot as plt

from slmlab.widgets.plot_style import SERIES, lesson_style

quantised = [module for module in small.modules() if isinstance(module, QuantizedLinear)]
codes = sum(layer.packed.nbytes for layer in quantised)
scales = sum(layer.scales.nbytes for layer in quantised)
parts = {
    "codes, 4 bits each": codes,
    "scales, 16 bits a group": scales,
    "what stayed in fp16": real - codes - scales,
}
weights = sum(layer.out_features * layer.in_features for layer in quantised)
print(f"{weights / parameters:.0%} of the parameters are in linear layers and became codes")
print(
    f"there a weight takes {8 * (codes + scales) / weights:.3f} bits, over the model {8 * real / parameters:.3f}"
)
eaten, kept = real - promised, parts["what stayed in fp16"]
print(
    f"of the {eaten / 1e6:.3f} MB too many the scales ate {scales / 1e6:.3f} ({scales / eaten:.0%}), "
    f"the fp16 parts {(eaten - scales) / 1e6:.3f}: they take {kept / 1e6:.3f} MB, and at 4 bits had "
    f"been promised {(parameters - weights) * 4 / 8e6:.3f}"
)
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 1.9), layout="constrained")
    for place, size in enumerate(parts.values()):
        look = SERIES[place]
        axes.barh(place, size / 1e6, color=look.colour, hatch=look.hatch, edgecolor="w")
        axes.text(size / 1e6, place, f"  {size / 1e6:.2f} MB", va="center")
    axes.set_yticks(range(3), list(parts))
    axes.invert_yaxis()
    axes.set_xlim(0, max(parts.values()) / 1e6 * 1.2)
    axes.set_xlabel("size (MB)")
    largest = max(list(parts)[1:], key=parts.get)
    axes.set_title(f"Most of what is no code: {largest}")
    plt.show()

# %% [markdown]
# The embedding table and the head stay in fp16, as in most files: they are looked up or give the
# logits directly. Interviewers ask for this sum: [the size of a 4-bit file](exercise:quantization.file_size), on paper.
#
# ## Four weights by hand
#
# Symmetric quantisation of a group: find the largest magnitude, amax. Give it the largest code.
# The scale is the step between codes, here amax / 7 with 4 bits. Round each weight to a step.

# %%
w = torch.tensor([[0.90, -0.31, 0.05, -0.62]])
by_hand = w.abs().max() / 7
q = quantize_tensor(w, "int4-g4")
print("scale   ", round(by_hand.item(), 4), "by hand,", round(q.scales.item(), 4), "stored in fp16")
print("steps   ", [round(x, 2) for x in (w / by_hand)[0].tolist()])
print("codes   ", q.codes[0].tolist())
print("back    ", [round(x, 3) for x in q.dequantize()[0].tolist()])
error = (q.dequantize() - w).abs()[0]
print("off by  ", [round(x, 3) for x in error.tolist()])
assert error.max() <= by_hand * 0.51  # half a step, and the rounding of the scale
print(f"No weight is off by more than half a step, {by_hand / 2:.3f}.")

# %% [markdown]
# The step does not care how small a weight is: 0.05 is within half a step of zero, so it becomes
# zero. One large weight decides for all its neighbours. Here are the package's own lines for that,
# out of `slmlab/quant/grid.py`: `grouped` are the weights in groups, `high_code` is 7 with 4 bits, and
# `_fp16_range` sees to it that fp16 can store the scale.

# %%
from slmlab.quant import grid

source = inspect.getsource(grid.scales_and_zero_points) + inspect.getsource(grid.to_codes)
for step in ("amax(-1) / high_code", "(grouped / scales)", "steps.clamp_("):
    print(next(line.strip() for line in source.splitlines() if step in line))

# %% [markdown]
# Your turn: [absmax INT8](exercise:quantization.absmax_int8), one scale a row.
#
# A group whose weights are not centred wastes codes. **Affine** quantisation spends a second number,
# the zero point: the code that stands for 0. The codes then cover low to high, not -amax to amax.

# %%
rows_of_32 = torch.stack((torch.linspace(-0.1, 0.9, 32), torch.linspace(-0.9, 0.9, 32)))
errors = {}
for scheme in ("int4-g32", "int4-g32-asym"):
    q = quantize_tensor(rows_of_32, scheme)
    errors[scheme] = (q.dequantize() - rows_of_32).square().mean(dim=1).sqrt()
    zero_points = "none" if q.zero_points is None else q.zero_points.flatten().tolist()
    used = [len(codes.unique()) for codes in q.codes]
    print(
        f"{scheme:13} codes in use {used}  zero points {zero_points}  "
        f"error of the lopsided row {errors[scheme][0]:.4f}, of the centred row {errors[scheme][1]:.4f}"
    )
gain = errors["int4-g32"] / errors["int4-g32-asym"]
assert gain[0] > 1.5 > gain[1]
print(
    f"Zero points make the first error {gain[0]:.1f} times smaller, the second {gain[1]:.2f} times."
)

# %% [markdown]
# The first row runs from -0.1 to 0.9: with a zero point all sixteen codes lie where its weights are.
# The second runs from -0.9 to 0.9 and has next to nothing to gain. A zero point costs 4 bits a group,
# so it has to earn them. Build it: [affine INT8](exercise:quantization.affine_int8).
#
# ## A real matrix
#
# In a trained matrix most weights are small and a few are not. Take the matrix with the largest
# weight beside its own spread, and count how many of its weights each scale treats as zero.

# %%
from slmlab.data import evaluation_set
from slmlab.widgets.quantization_bench import Bench

text = evaluation_set("prose").texts[0]  # held out: no model here was trained on it
bench = Bench(lm, lm.tokenizer.encode(text))
matrix = bench.layers[bench.matrix].weight.detach()
spread, amax = matrix.std(), matrix.abs().max()
print(
    f"{bench.matrix}: {tuple(matrix.shape)}, its largest weight is {amax / spread:.1f} standard deviations"
)
for scheme in ("int4-row", "int4-g128", "int4-g32", "int4-g16"):
    q = quantize_tensor(matrix, scheme)
    relative = (q.dequantize() - matrix).norm() / matrix.norm()
    zeros = (q.codes == 0).float().mean()
    print(
        f"{scheme:10} {q.bits_per_weight:.3f} bits  error {relative:5.1%}  codes that are 0: {zeros:.0%}"
    )

# %% [markdown]
# ## The whole model
#
# The error of a weight is not what you care about. Ask the model: on the same held-out tokens, how
# far do its next-token distributions move? That is the KL divergence from the fp32 model, in nats a
# token. A nat has a scale: at a KL of k, the tokens that the fp32 model would write lose a factor of
# exp(-k) of their probability, on average. `Bench` rounds every linear layer, runs the text, and
# remembers the answer.

# %% tags=["nbval-ignore-output"]
row, grouped = bench.damage("int4-row"), bench.damage("int4-g32")
for found in (row, grouped):
    print(
        f"{found.scheme:9} {found.bits_per_weight:.3f} bits  error {found.relative_error:5.1%}  "
        f"KL {found.kl_nats:.4f} nats  other token chosen {found.flips:.1%} of {found.tokens}"
    )
print(
    f"{grouped.kl_nats:.4f} nats: what the fp32 model would write becomes "
    f"{-math.expm1(-grouped.kl_nats):.1%} less likely"
)
ratio = row.kl_nats / grouped.kl_nats
squares = (row.relative_error / grouped.relative_error) ** 2
measured("KL of int4 with one scale a row, over groups of 32", ratio)
print(f"KL is {ratio:.2f} times as large; the squared error of the weights {squares:.2f} times.")
print(
    "The two agree: KL follows the squared error."
    if 0.67 < ratio / squares < 1.5
    else "The two do not agree here: some weights matter more than others, which is lesson 03."
)

# %% [markdown]
# Group size is a trade: each halving adds scales and takes off error. Draw it for all of them. The
# first point of each line is one scale a row, the last is groups of 16.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.quantization_picture import draw_frontier, frontier_lines

lines = frontier_lines(bench, (4, 3, 2))
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 3.8), layout="constrained")
    draw_frontier(axes, lines)
    four, three = lines[4][0], lines[3][-1]
    better = four.kl_nats < three.kl_nats
    axes.set_title(
        f"At {four.bits_per_weight:.2f} bits, int4 with one scale a row "
        f"{'beats' if better else 'loses to'} int3 in groups of 16"
    )
    plt.show()
print("KL taken off on the way   row to 128   128 to 64   64 to 32   32 to 16")
for bits, points in lines.items():
    taken = [1 - finer.kl_nats / coarser.kl_nats for coarser, finer in pairwise(points)]
    print(f"                   int{bits} {''.join(f'{share:12.0%}' for share in taken)}")
largest_codes = [
    (b, parse_scheme(f"int{b}-row" if b < 8 else "int8").code_range[1]) for b in (2, 3, 4, 8)
]
for (b, code), (more, larger) in pairwise(largest_codes):
    falls = (larger / code) ** (2 / (more - b))
    print(
        f"int{b} to int{more}: the largest code goes from {code} to {larger}, squared error / {falls:.1f} a bit"
    )

# %% [markdown]
# Within a line each halving costs twice as many bits as the one before. What it takes off is printed
# above, and no rule makes it fall in step. Across lines the step is amax over the largest code, so
# the fewer bits you have, the more the next one buys. You will put the two side by side below.
#
# Decide for yourself: [a group size under a byte budget](exercise:quantization.choose_group).
#
# ## Two codes a byte
#
# No processor addresses half a byte, so two codes share one. The even column takes the low
# nibble (the lower four bits).

# %%
from slmlab.quant import pack_codes, unpack_codes

four_codes = torch.tensor([[3, -1, -7, 2]], dtype=torch.int8)
packed = pack_codes(four_codes, 4)
print("codes ", four_codes[0].tolist())
print("bytes ", packed[0].tolist(), "=", [format(byte, "08b") for byte in packed[0].tolist()])
print("back  ", unpack_codes(packed, 4, columns=4)[0].tolist())

# %% [markdown]
# 1111 in the first byte is -1 in two's complement. Build it: [pack INT4](exercise:quantization.pack_int4).
#
# ## A bug that runs
#
# Kernels reorder nibbles so that they unpack faster: AutoAWQ stores eight codes in the order 0, 2, 4,
# 6, 1, 3, 5, 7. A file written in one order and read in another loads without an error. Here is a
# packer with such a slip. Two checks that people write pass. Then the model speaks.

# %% tags=["nbval-ignore-output"]
from slmlab.generation import LanguageModel
from slmlab.measure import kl_to_reference


def pack_suspect(codes):
    packed = pack_codes(codes, 4)
    packed[:, 1::2] = (packed[:, 1::2] >> 4) | (packed[:, 1::2] << 4)
    return packed


def histogram(codes):
    return torch.bincount(codes.flatten().int() + 8, minlength=16)


ids = bench.ids[0, :128]
healthy, broken = (quantize_model(lm.model, "int4-g32") for _ in range(2))
same_size = same_histogram = True
for layer in (m for m in broken.modules() if isinstance(m, QuantizedLinear)):
    before = layer.weight.codes
    layer.packed.copy_(pack_suspect(before))
    after = layer.weight.codes
    same_size &= before.shape == after.shape
    same_histogram &= torch.equal(histogram(before), histogram(after))
print("same size:", same_size, "  same histogram of codes:", same_histogram)
for name, model in (("healthy", healthy), ("broken", broken)):
    kl = float(kl_to_reference(model, lm.model, ids))
    said = LanguageModel(model, lm.tokenizer).generate("def main(", max_new_tokens=12)
    print(f"{name:8} KL {kl:8.4f} nats   {said!r}")

# %% [markdown]
# Find it by a property, not by staring: **unpacking what was packed gives the codes back**, for every
# matrix. Let the machine look for the smallest one that breaks it.

# %%
generator = torch.Generator().manual_seed(0)


def smallest_counterexample(pack, tries=50):
    for columns in range(1, 9):
        for _ in range(tries):
            codes = torch.randint(-7, 8, (1, columns), generator=generator, dtype=torch.int8)
            back = unpack_codes(pack(codes), 4, columns)
            if not torch.equal(back, codes):
                return codes[0].tolist(), back[0].tolist()
    return None


print("our packer: ", smallest_counterexample(lambda codes: pack_codes(codes, 4)))
codes, back = smallest_counterexample(pack_suspect)
print("the suspect:", codes, "came back as", back)
print(f"One and two columns pass; {len(codes)} are needed to see the second byte.")

# %% [markdown]
# A test on two columns, or on the histogram, would have passed for ever.
# [Repair the reader](exercise:quantization.unpack_repair).
#
# ## Levels where the weights are
#
# Integers are evenly spaced. Weights are not: near zero they crowd. A **code book** stores the place
# of a level in a table, and the table can put its levels anywhere. NF4 takes normal quantiles.

# %%
from slmlab.quant.codebooks import levels

table = levels("nf4")
with lesson_style():
    figure, axes = plt.subplots(figsize=(7.2, 2.8), layout="constrained")
    grouped_weights = matrix[:, : matrix.shape[1] // 32 * 32].reshape(-1, 32)
    normalised = grouped_weights / grouped_weights.abs().amax(dim=1, keepdim=True).clamp(min=1e-12)
    inner = normalised[normalised.abs() < 0.999]  # each group's largest is 1 by construction
    axes.hist(inner.flatten().numpy(), bins=100, density=True, color="#D9D9D9")
    for height, points, series, name in (
        (-0.12, table, SERIES[0], "NF4"),
        (-0.30, torch.arange(-7, 8) / 7, SERIES[1], "int4"),
    ):
        axes.plot(
            points,
            [height] * len(points),
            linestyle="none",
            marker=series.marker,
            color=series.colour,
        )
        axes.text(1.05, height, name, va="center")
    axes.set(xlim=(-1.1, 1.2), yticks=[])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("weight over the largest of its group of 32 (share)")
    gaps = table.diff()
    axes.set_title(
        f"NF4's steps are {gaps.max() / gaps.min():.1f} times finer in the middle than at the end"
    )
    plt.show()
print("sixteen levels:", [round(x, 3) for x in table.tolist()])

# %% [markdown]
# Build both halves: [the NF4 code book](exercise:quantization.nf4_levels) and
# [quantise to a code book](exercise:quantization.nf4_codes).
#
# bitsandbytes keeps NF4's absmax in fp32, so 32 bits a group: `nf4-g64` and `int4-g32` cost the same
# 4.5 bits. One has better levels, the other twice as many scales. Which is worth more?
#
# Two more are measured beside them. `-dq` quantises the scales themselves (double quantisation): 64
# weights share an absmax of 8 bits. `fp4` is a 4-bit float, a sign, two bits of exponent and one of
# mantissa: its levels are powers of two and the middles between them.

# %%
middle, end = gaps.min().item(), gaps.max().item()
for scheme, count, steps in (
    ("int4-g32", 32, f"every step {largest_of(32) / 7:.2f}"),
    ("nf4-g64", 64, f"steps from {largest_of(64) * middle:.2f} to {largest_of(64) * end:.2f}"),
):
    print(
        f"{scheme:8} the largest of {count} lies at {largest_of(count):.2f}, {steps} standard deviations"
    )
predict("KL of nf4-g64, over int4-g32 at the same size", None, unit="times")

# %% tags=["nbval-ignore-output"]
books = bench.fill(["int4-g64", "int4-g32", "nf4-g64", "nf4-g64-dq", "fp4-g64"])
for found in books:
    print(
        f"{found.scheme:11} {found.bits_per_weight:.3f} bits  error {found.relative_error:5.1%}  "
        f"KL {found.kl_nats:.4f} nats"
    )
int4_64, int4_32, nf4, double = books[:4]
measured("KL of nf4-g64, over int4-g32 at the same size", nf4.kl_nats / int4_32.kl_nats)
print(
    f"In groups of 64 the better levels multiply KL by {nf4.kl_nats / int4_64.kl_nats:.2f}; "
    f"integers with twice the scales, by {int4_32.kl_nats / int4_64.kl_nats:.2f}."
)
print(
    f"Double quantisation saves {nf4.bits_per_weight - double.bits_per_weight:.2f} bits a weight and "
    f"multiplies nf4's KL by {double.kl_nats / nf4.kl_nats:.2f}."
)

# %% [markdown]
# ## Play: when does metadata stop paying?
#
# Start from one scale a row and halve. Each step adds scales and takes off KL. But the same bits can be
# spent otherwise: on wider codes, the dashed line. The lead of the metadata is how many times the KL
# on that line is larger. Metadata pays while its lead grows. **With 4-bit codes, at which group size
# does it stop paying?** Move the group and read the last sentence. Then try 2 bits, and zero points.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.quantization import explorer, stops_paying

explorer(bench)

# %% tags=["nbval-ignore-output"]
for bits in (4, 3, 2):
    print(stops_paying(bench, bits).sentence)

# %% [markdown]
# The dashed line needs a way to buy half a bit of code. Lesson 03 has one: more bits for some layers
# than for others.
#
# ## Bytes, quality and time together
#
# If decoding waits for memory (lesson 01), fewer bytes mean more tokens a second. The table below was
# measured by `make prove` on the model as shipped; `python -m authoring.prove quantization_table`
# makes it anew in a checkout, and `SLMLAB_MODEL=...` before it takes another model. The ceiling is
# bandwidth over the bytes that one token reads. They are not the file's: the model that is timed
# keeps its head in float32 where the file has fp16, and the cache comes on top. Two facts for a guess
# come first.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.quantization_table import HOW_TO_MAKE_IT, load_table, speed_plot

table_of_schemes = load_table()
shrunk = model_bytes(lm.model) / model_bytes(healthy)
print(f"the int4-g32 copy has {shrunk:.1f} times fewer bytes than float32, its head included")
if table_of_schemes:
    r = table_of_schemes.row("float32")
    used = r["tokens_per_second_measured"] / r["tokens_per_second_predicted"]
    print(
        f"when the table was made, float32 reached {r['tokens_per_second_measured']:.0f} of the "
        f"{r['tokens_per_second_predicted']:.0f} tokens/s of its ceiling: reading bytes explains "
        f"{used:.0%} of a step, {1 - used:.0%} is something else"
    )
predict("decode with int4-g32 weights, over float32", None, unit="times")

# %% tags=["nbval-ignore-output"]
print(table_of_schemes.text_table() if table_of_schemes else HOW_TO_MAKE_IT)

# %% tags=["nbval-ignore-output"]
from IPython.display import display

if table_of_schemes:
    rows = {r["scheme"]: r for r in table_of_schemes.rows}
    lossless, four_bit, two_bit = rows["int8"], rows["int4-g32"], rows["int2-g32"]
    for r in (lossless, four_bit, two_bit):
        faster = r["tokens_per_second_measured"] / rows["float32"]["tokens_per_second_measured"]
        used = r["tokens_per_second_measured"] / r["tokens_per_second_predicted"]
        read = table_of_schemes.bytes_read("float32") / table_of_schemes.bytes_read(r["scheme"])
        print(
            f"{r['scheme']}: the file {rows['float32']['file_bytes'] / r['file_bytes']:.1f} times "
            f"smaller, {read:.1f} times fewer bytes read a token, perplexity {r['perplexity'] / rows['float32']['perplexity'] - 1:+.1%}, "
            f"{r['argmax_flip_share']:.1%} of the tokens flip, {faster:.2f} times as fast "
            f"({used:.0%} of its ceiling)"
        )
    base = rows["float32"]["perplexity"]
    low_bits = [r for r in table_of_schemes.rows if r["bits_per_weight"] < 8]
    quiet = min(low_bits, key=lambda r: abs(r["perplexity"] / base - 1))
    print(
        f"Perplexity hardly sees {quiet['scheme']} ({quiet['perplexity'] / base - 1:+.1%}), and yet "
        f"{quiet['argmax_flip_share']:.1%} of the greedy choices flip: it averages tokens that got "
        "likelier with tokens that got less likely. KL and flips count both."
    )
    display(speed_plot(table_of_schemes))

# %% [markdown]
# A dot far below its dash means that something other than the bytes takes the time: the kernel, or
# the calls between the products. Measure the one that matters here, on your machine.

# %% tags=["nbval-ignore-output"]
from slmlab.measure import interleaved

cache_start, token = torch.zeros(1, 64, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64)


@torch.inference_mode()
def stepper(model):
    cache = slmlab.kv.ContiguousCache(model.config, max_length=72)
    model(cache_start, cache)

    @torch.inference_mode()
    def step():
        model(token, cache)
        cache.truncate(64)

    return step


timed = interleaved(stepper(lm.model), stepper(healthy), repeats=40)
kernels = {
    m.kernel.name if m.kernel else "none: unpack and multiply"
    for m in healthy.modules()
    if isinstance(m, QuantizedLinear)
}
measured("decode with int4-g32 weights, over float32", timed.ratio)
print(f"products by {', '.join(sorted(kernels))}")
print(
    f"{shrunk:.1f} times fewer bytes, {timed.ratio:.2f} times the speed (n = 40, one after the other)"
)
if timed.ratio > 0.8 * shrunk:
    print("The bytes explain it.")
elif timed.ratio > 1:
    print("The bytes fell faster than the time: the rest of the step did not shrink.")
else:
    print("It got slower: unpacking these shapes costs more than the bytes save.")

# %% [markdown]
# ## Explain
#
# Say it in two sentences: what does a smaller group buy and what does it cost, and why do you not
# judge a 4-bit model by its perplexity alone?
#
# <details><summary>A model answer</summary>
#
# A smaller group has a smaller largest weight, so its step and its rounding error shrink, and it pays
# with one more scale for every group; each halving costs twice as many bits as the one before, so at
# some size wider codes are the better buy. Perplexity averages tokens that got likelier with tokens
# that got less likely, while KL to the original model and the share of flipped choices count every
# change.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
from slmlab.checking import Question, ask
from slmlab.measure import predict_decode
from slmlab.widgets import PUBLISHED

bits_128 = parse_scheme("int4-g128").bits_per_weight(4096, 4096)
one_b = PUBLISHED["Llama-3.2-1B"].config()
speeds = [predict_decode(one_b, s, (50, None)) for s in ("float16", "int4-g32")]
plain, shifted = bench.damage("int4-g32"), bench.damage("int4-g32-asym")
ask(
    Question(
        "Seven billion weights in int4, groups of 128, fp16 scales. How many GB?",
        f"{bits_128:.3f} bits a weight: {7e9 * bits_128 / 8e9:.2f} GB, not {7 * 4 / 8:.2f}; and whatever stays in 16 bits comes on top.",
    ),
    Question(
        "Llama-3.2-1B goes from fp16 to int4-g32, the head stays in 16 bits. How much faster can it write at most?",
        f"A token reads {speeds[0].weight_bytes / 1e9:.2f} GB before and {speeds[1].weight_bytes / 1e9:.2f} GB after: "
        f"{speeds[1].tokens_per_second / speeds[0].tokens_per_second:.2f} times, not 4: the head of 128,256 rows did not shrink.",
    ),
    Question(
        "Are zero points worth their bits for weights?",
        f"Here, in groups of 32: KL {plain.kl_nats:.4f} with {plain.bits_per_weight:.3f} bits without them, {shifted.kl_nats:.4f} with "
        f"{shifted.bits_per_weight:.3f} bits. "
        + (
            "They help: a small group is rarely centred, and the sixteenth code is used as well."
            if shifted.kl_nats < plain.kl_nats
            else "They do not: the groups are centred already."
        ),
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 03 asks which weights matter, and spends the bits there.
#
# Sources: Jacob et al. 2018, [arXiv:1712.05877](https://arxiv.org/abs/1712.05877), section 2.1
# (affine). Dettmers et al. 2023, [arXiv:2305.14314](https://arxiv.org/abs/2305.14314), section 3 (NF4).
# The code of this lesson: `slmlab/quant/grid.py`, `packing.py` and `codebooks.py`.
