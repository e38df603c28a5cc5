# %% [markdown]
# # 04 · The KV cache: what a model remembers, and what that costs
#
# *45 minutes · no GPU, no download · exercises: [04_kv_cache](../exercises/04_kv_cache.ipynb)*
#
# ## The notes are longer than the book

# %%
import inspect
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.data import evaluation_set
from slmlab.kv import (
    ConcatenatingCache,
    ContiguousCache,
    QuantizedCache,
    SlidingWindowCache,
    kv_bytes,
)
from slmlab.quant import model_bytes

torch.set_num_threads(1)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
model, config = lm.model, lm.model.config
text = evaluation_set("prose").texts[0]  # held out: no model here was trained on it
longest = min(512, config.max_position_embeddings)
tokens = lm.tokenizer.encode(text)[:longest]
ids = torch.tensor([tokens])  # (1, longest)

# %%
from slmlab.widgets.kv_cache_models import cache_configs
from slmlab.widgets.units import bytes_text

published = cache_configs()
with torch.inference_mode():
    cache = ConcatenatingCache(config)  # holds what it needs and no more
    reference = model(ids, cache)[0]  # (longest, vocabulary)
letters = len(lm.tokenizer.decode(tokens).encode())
print(f"{len(tokens)} tokens of text:      {bytes_text(letters)}")
print(
    f"what the model keeps of it: {bytes_text(cache.nbytes)} in float32, {cache.nbytes / letters:,.0f} times the text"
)
print(f"so many such texts weigh as much as the model: {model_bytes(lm.model) / cache.nbytes:.0f}")
seven, eight = published["Llama-2-7B"], kv_bytes(published["Llama-2-7B"], 4096, batch=8)
weights = slmlab.measure.predict.weight_bytes_stored(seven, "float16")
print(
    f"Llama-2-7B in float16, 8 texts of 4,096 tokens: {bytes_text(eight)}, its weights {bytes_text(weights)}"
)

# %% [markdown]
# That store is the **KV cache**: the keys and values of every token, in every layer, kept so that no
# token is computed twice. In this lesson you size it, see what it saves, and make it smaller in three
# ways: shared heads, a window, fewer bits.
#
# First commit yourself. Without a cache the model reads the whole text again for each new token: the
# arithmetic of all its tokens, and one reading of the weights. With one, a single token's arithmetic
# and the same reading. Lesson 01 says that a step takes at least the longer of two times, that of its
# bytes and that of its arithmetic. The cell prints both for one token. Scale them for the whole text,
# take the longer one on each side, divide. Then replace `None` by your factor, or leave it.

# %% tags=["nbval-ignore-output"]
from slmlab.measure import Roofline, predict_decode

roofline = Roofline.measure()
one = predict_decode(config, "float32", roofline, context=longest)
print(f"The last token of a text of {longest}, alone, takes this machine at least:")
print(
    f"{1000 * one.bandwidth_seconds:6.2f} ms for {bytes_text(one.weight_bytes + one.kv_bytes)} of weights and "
    f"cache at {roofline.bandwidth_gb_s:.1f} GB/s"
)
print(
    f"{1000 * one.compute_seconds:6.2f} ms for {one.flops / 1e6:.0f} MFLOP at {roofline.gemm_gflop_s:.0f} GFLOP/s"
)
predict("time of the last token without a cache, over with one", None, unit="times")

# %% [markdown]
# ## What is kept, and for whom
#
# Watch one layer store three tokens. A query is used once and forgotten; keys and values stay.


# %%
class Watched(ContiguousCache):
    """A cache that tells what its first layer is given."""

    def append(self, layer, k, v):
        if layer == 0:
            print("keys  ", tuple(k.shape), " (batch, kv_heads, time, head_dim)")
            print(
                "values", tuple(v.shape), " query heads that will ask:", config.num_attention_heads
            )
        return super().append(layer, k, v)


with torch.inference_mode():
    model(ids[:, :3], Watched(config, max_length=3))

# %% [markdown]
# The heads of that shape are the ones to count. A formula that is often copied takes the model's
# width instead, which is query heads times head_dim. Put both beside the bytes of the real object.

# %%
a_token = cache.nbytes / cache.length
copied = 2 * config.num_hidden_layers * config.num_attention_heads * config.head_dim * 4
print(f"one token, measured:               {a_token:8,.0f} bytes (float32)")
print(f"2 * layers * width * 4 bytes:      {copied:8,} bytes, {copied / a_token:.1f} times as much")
print(f"kv_bytes:                          {kv_bytes(config, 1, dtype='float32'):8,} bytes\n")
print("\n".join(inspect.getsource(kv_bytes).splitlines()[-3:]))
assert kv_bytes(config, cache.length, dtype="float32") == cache.nbytes

# %% [markdown]
# Sharing is called **grouped-query attention** (Ainslie et al. 2023,
# [arXiv:2305.13245](https://arxiv.org/abs/2305.13245)): several query heads ask one key and value
# head. It needs no extra work at run time. It must be trained in: from the start, or by converting a
# finished model with about 5% of its training compute (section 2). Published models, from their config
# files:

# %%
from slmlab.widgets.kv_cache_plots import shared_heads

shared_heads({"this model": config, **published})

# %% [markdown]
# Sum it up yourself: [size a cache](exercise:kv.bytes), then, on paper,
# [the context that still fits](exercise:kv.context_fits).
#
# ## Off and on
#
# The decode loop, with a cache or with none. Without one, each step gets the whole text.


# %%
@torch.inference_mode()
def decode(prompt, steps, cache=None):
    text, step = list(prompt), list(prompt)
    for _ in range(steps):
        hidden = model.hidden(torch.tensor([step if cache is not None else text]), cache)
        text.append(model.lm_head(hidden[:, -1]).argmax().item())
        step = text[-1:]
    return text[len(prompt) :]


prompt, steps = tokens[:24], 16
caches = {
    "none": None,
    "concatenating": ConcatenatingCache(config),
    "preallocated": ContiguousCache(config, max_length=longest),
}
said = {name: decode(prompt, steps, cache) for name, cache in caches.items()}
for name, cache in caches.items():
    note = "" if cache is None else f"{bytes_text(cache.bytes_copied)} written"
    print(f"{name:14} {lm.tokenizer.decode(said[name])!r}  {note}")
assert said["none"] == said["concatenating"] == said["preallocated"]

# %% [markdown]
# The same tokens. Now the cost of a token against its position. Dotted is the bound
# from lesson 01: the slower of arithmetic and memory, with the rates of this machine.

# %% tags=["nbval-ignore-output"]
from functools import partial

from slmlab.measure import interleaved

positions = sorted({max(2, longest // part) for part in (32, 16, 8, 4, 2, 1)})
cost = {"without a cache": [], "with a cache": []}


@torch.inference_mode()
def without(position):
    model.lm_head(model.hidden(ids[:, :position])[:, -1])


@torch.inference_mode()
def stepper(cache, position):
    model.hidden(ids[:, : position - 1], cache)

    @torch.inference_mode()
    def step():
        model.lm_head(model.hidden(ids[:, position - 1 : position], cache)[:, -1])
        cache.truncate(position - 1)

    return step


for position in positions:
    step = stepper(ContiguousCache(config, max_length=longest), position)
    timed = interleaved(partial(without, position), step, repeats=7)
    cost["without a cache"].append(timed.a.min_seconds * 1000)
    cost["with a cache"].append(timed.b.min_seconds * 1000)
factor = timed.ratio_of_minima  # of the fastest runs: what the machine can do undisturbed
measured("time of the last token without a cache, over with one", factor)
print(
    f"token {longest}: {factor:.0f} times as long without a cache "
    f"(single pairs from {timed.ratio_low:.0f} to {timed.ratio_high:.0f}, n = {timed.n})"
)

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache_plots import token_cost


def least_ms(position):
    """Without a cache: the weights once, and half the text attended to on average."""
    whole = partial(predict_decode, config, "float32", roofline, batch=position, head_rows=1)
    seconds = whole().bandwidth_seconds, whole(context=position // 2).compute_seconds
    return 1000 * max(seconds)


bounds = {
    "without a cache": [least_ms(p) for p in positions],
    "with a cache": [
        1000 * predict_decode(config, "float32", roofline, context=p).step_seconds
        for p in positions
    ],
}
title = f"Token {longest} takes {factor:.0f} times as long without a cache"
display(token_cost(positions, cost, bounds, title))
over = {name: cost[name][-1] / bounds[name][-1] for name in cost}
foreseen = bounds["without a cache"][-1] / bounds["with a cache"][-1]
print(
    f"The roofline gives {foreseen:.0f} times, measured {factor:.0f}: a step with the cache takes "
    f"{over['with a cache']:.1f} times its bound, one without {over['without a cache']:.1f} times."
)
if over["with a cache"] > over["without a cache"]:
    print("Small operations and Python cost time at every step, and a short step feels them more.")
print(
    f"All {longest} tokens of a text: without a cache the cost of a token grows with its position, so "
    "the sum grows with the square; with one it grows with the length."
)

# %% [markdown]
# ## A cache that copies itself
#
# There are two ways to keep a growing tensor. Join the old one and the new row at every step, as the
# first implementations did. Or reserve room once and write into it. The cost of the first: step t
# writes t tokens.

# %%
predict("bytes written for the whole text, concatenating over preallocated", None, unit="times")

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache_bench import append_milliseconds, append_to_all
from slmlab.widgets.kv_cache_plots import growing_caches

room = min(4096, int(2e8 / a_token))  # tokens; both caches together stay below 0.4 GB
lengths = [n for n in (longest, 2 * longest, 4 * longest, 8 * longest) if n <= room]
row = torch.zeros(1, config.num_key_value_heads, 1, config.head_dim)
joined, reserved = ConcatenatingCache(config), ContiguousCache(config, max_length=room + 1)
written, pause = {}, {}
for name, grown in (("concatenating", joined), ("preallocated", reserved)):
    written[name] = []
    for n in range(1, longest + 1):
        append_to_all(grown, config.num_hidden_layers, row)
        if n in positions:
            written[name].append(grown.bytes_copied)
    pause[name] = append_milliseconds(grown, config.num_hidden_layers, row, lengths)
times_more = written["concatenating"][-1] / written["preallocated"][-1]
measured("bytes written for the whole text, concatenating over preallocated", times_more)
assert times_more == (longest + 1) / 2  # 1 + 2 + ... + n over n
formulas = {
    "concatenating": [a_token * n * (n + 1) / 2 for n in positions],
    "preallocated": [a_token * n for n in positions],
}
title = f"Joining writes {times_more:g} times the bytes after {longest} tokens"
display(growing_caches(positions, written, formulas, lengths, pause, title))
print(
    f"{longest} tokens: {times_more:g} times the bytes. At {lengths[-1]:,} tokens a concatenating "
    f"append takes {pause['concatenating'][-1]:.2f} ms, a preallocated one {pause['preallocated'][-1]:.2f} ms.\n"
    f"A step of the model took {cost['with a cache'][0]:.1f} ms at {positions[0]} tokens and "
    f"{cost['with a cache'][-1]:.1f} ms at {longest}."
)

# %% [markdown]
# At short contexts the copies hide behind the model, and they grow with every token. Repair one that
# does not even know how long it will get: [grow by doubling](exercise:kv.concat_repair).
#
# ## A bug that runs: the rewound cache
#
# Speculative decoding (lesson 06) feeds tokens that may be rejected, and takes them back. This session
# counts the positions itself. Three checks that people write pass.


# %% tags=["nbval-ignore-output"]
class Session:
    """Feeds tokens, and takes back what was rejected."""

    def __init__(self):
        self.cache, self.seen = ContiguousCache(config, max_length=longest), 0

    @torch.inference_mode()
    def feed(self, new):
        at = torch.arange(self.seen, self.seen + len(new))
        self.seen += len(new)
        return model(torch.tensor([new]), self.cache, positions=at)[0, -1]  # (vocabulary,)

    def rewind(self, n):
        self.cache.truncate(n)


@torch.inference_mode()
def off(session_logits, held):
    """How far the logits are from those of a pass over the same tokens without a cache."""
    wanted = model(torch.tensor([held]))[0, -1]
    return float((session_logits - wanted).abs().max() / wanted.abs().max())


one, many, again = Session(), Session(), Session()
first = off(one.feed(tokens[:8]), tokens[:8])
for token in tokens[:8]:
    last = many.feed([token])
again.feed(tokens[:8])
again.rewind(0)
checks = {
    "one prompt": first,
    "token by token": off(last, tokens[:8]),
    "rewound to the start": off(again.feed(tokens[8:16]), tokens[8:16]),
}
for name, found in checks.items():
    print(f"{name:21} off by {found:.0e}: {'passes' if found < 1e-4 else 'fails'}")
    assert found < 1e-4

# %% [markdown]
# Even the rewind passes: rotary attention sees only distances between tokens, and after a rewind to
# nothing all positions are wrong by the same amount. So state the property and let the machine look:
# **after any feeds and rewinds, the logits equal those of a pass over the held tokens without a
# cache.**


# %% tags=["nbval-ignore-output"]
from slmlab.lessons.kv_cache.session import RewindableSession


def smallest_counterexample(make, largest=4):
    for first in range(1, largest):
        for kept in range(first + 1):
            session = make()
            session.feed(tokens[:first])
            session.rewind(kept)
            found = off(session.feed(tokens[20:21]), tokens[:kept] + tokens[20:21])
            if found > 1e-4:
                return f"feed {first}, keep {kept}, feed 1: the logits are off by {found:.1%}"
    return "none"


repaired = partial(RewindableSession, model, longest)  # its code: after the exercise
print("this session:", smallest_counterexample(Session))
print("a right one: ", smallest_counterexample(repaired))
assert smallest_counterexample(repaired) == "none" != smallest_counterexample(Session)

# %% [markdown]
# That is short enough for paper: write down what the session holds before its last feed, and where the
# new token goes. Then [repair it](exercise:kv.rewind_repair).
#
# ## A window: what it saves, what it forgets
#
# `SlidingWindowCache` keeps the newest tokens in a ring, and its size does not depend on the text. The
# ring holds window - 1 tokens, and some more, so that it can go back. Mistral 7B was trained with a
# window; this model may not have been, and then it loses what it would have looked at. Ask it: the
# held-out recall task stores pairs such as `cup 33`, answers some questions and asks one more. The
# asked pair stands in the store and often once more behind `ask:`. A window that reaches back to its
# nearest mention should do: that share of the prompts is the dotted prediction.

# %%
samples = evaluation_set("recall").samples[:20]
encode = partial(lm.tokenizer.encode, add_special_tokens=False)


def distance(sample):
    """Tokens from the nearest mention of the asked pair to the end of the prompt."""
    pair = "\n" + sample.prompt.rsplit("\n", 1)[-1] + sample.answer
    before = sample.prompt[: sample.prompt.rindex(pair) + 1]
    return len(encode(sample.prompt)) - len(encode(before))


shown = samples[0]
print(f"{' | '.join(shown.prompt.splitlines())} ->{shown.answer}")
print(
    f"{len(encode(shown.prompt))} tokens; the nearest mention starts {distance(shown)} from the end."
)
ring = SlidingWindowCache(config, window=64).nbytes / a_token
print(
    f"A ring for a window of 64 holds {ring:.0f} tokens: 63 to see and {ring - 63:.0f} to go back."
)

# %% tags=["nbval-ignore-output"]
from slmlab.speculative import acceptance_interval  # Wilson's interval, of any share
from slmlab.widgets.kv_cache_quality_plots import recall_by_window

windows = (8, 16, 32, 64, None)


@torch.inference_mode()
def recalled(sample, window):
    """Whether the answer gets the highest logit at every one of its tokens."""
    asked, whole = len(encode(sample.prompt)), encode(sample.prompt + sample.answer)
    ring = None if window is None else SlidingWindowCache(config, window=window)
    best = model(torch.tensor([whole]), ring)[0].argmax(-1).tolist()
    return best[asked - 1 : -1] == whole[asked:]


right = [[recalled(sample, window) for sample in samples] for window in windows]
inside = [[w is None or distance(sample) <= w for sample in samples] for w in windows]
shares, dotted = ([sum(row) / len(samples) for row in rows] for rows in (right, inside))
intervals = [acceptance_interval(sum(row), len(samples)) for row in right]
title = (
    f"With a window of {windows[1]} it recalls {shares[1]:.0%}, with every token {shares[-1]:.0%}"
)
display(recall_by_window(windows, shares, intervals, dotted, len(samples), title))
cases = [pair for rows in zip(right, inside) for pair in zip(*rows)]  # (recalled, in the window)
kept, lost = ([was for was, held in cases if held == which] for which in (True, False))
print(
    f"Of {len(kept)} answers whose pair still lay in the window it gave {sum(kept)}; of the {len(lost)} others "
    f"{sum(lost)}."
)
if sum(kept) > 0.9 * len(kept) and sum(lost) < 0.1 * len(lost):
    print("It recalls what still lies in the window, and stacked layers add next to nothing here.")

# %% [markdown]
# A ring has its own classic bug: a chunk of a prompt pushes keys out that its own first tokens should
# still see. [Repair a window that forgets too early](exercise:kv.window_repair).
#
# ## Fewer bits: keys are not values
#
# Quantise three tokens of three channels, where the first channel is loud in every token. A group
# is cut into steps between its minimum and its maximum. Along which side should it run?

# %%
from slmlab.kv.minmax import MinMaxGrid

few_keys = torch.tensor([[30.0, 0.3, -0.9], [33.0, -0.4, 0.6], [31.0, 0.5, 0.1]])
for name, groups in (("per token", few_keys), ("per channel", few_keys.T)):
    grid = MinMaxGrid(bits=2, group_size=3, columns=3)
    back = grid.dequantize(*grid.quantize(groups))  # a row is a group
    back = back if name == "per token" else back.T
    quiet = [[round(x, 1) for x in row] for row in back[:, 1:].tolist()]
    worst = (back - few_keys)[:, 1:].abs().max()
    print(f"{name:12} quiet channels come back as {quiet}, off by up to {worst:.2f}")

# %% [markdown]
# In a token the loud channel sets the step, and its quiet neighbours collapse onto one value. Are
# there loud channels in this model? Take the head with the loudest and look at keys and values side by
# side.

# %%
from slmlab.widgets.kv_cache_quality_plots import keys_beside_values

with torch.inference_mode():
    filled = ConcatenatingCache(config)
    model(ids, filled)
    nothing = row[:, :, :0]  # appending nothing returns all that is held
    held = [filled.append(layer, nothing, nothing) for layer in range(config.num_hidden_layers)]
sizes = torch.stack([torch.stack((k[0], v[0])) for k, v in held]).abs()  # (layer, 2, head, T, D)
by_channel = sizes.mean(dim=3)  # (layer, keys or values, kv_head, channel)
live = by_channel >= 0.01 * by_channel.amax(-1, keepdim=True)  # silent ones would lower the mean
loudness = by_channel.amax(-1) / ((by_channel * live).sum(-1) / live.sum(-1))
layer, head = divmod(int(loudness[:, 0].argmax()), loudness.shape[2])
most = loudness[layer, :, head].tolist()
title = f"Layer {layer}, KV head {head}: the loudest key channel is {most[0]:.1f} times the mean"
display(keys_beside_values(sizes[layer, :, head], most, title))
print(
    f"{(~live[:, 0]).sum()} of {live[:, 0].numel()} key channels in the model are nearly silent; each mean is over "
    "the others of its head."
)
mean_of = loudness.mean(dim=(0, 2))
print(
    f"over all layers and heads the loudest channel is {mean_of[0]:.1f} times the mean in keys, {mean_of[1]:.1f} in values"
)
print(
    "Keys have the louder channels here."
    if mean_of[0] > 1.1 * mean_of[1]
    else "Here the keys have no louder channels than the values."
)

# %% [markdown]
# A stripe is a channel that is loud, or silent, in every token. KIVI (Liu et al. 2024,
# [arXiv:2402.02750](https://arxiv.org/abs/2402.02750)) found them in the keys of the models it looked
# at and not in the values. So it groups keys along a channel, over 32 tokens, and values along a token.
# A channel's group needs its tokens before it can be cut, so the newest ones stay in float32.
#
# What is it worth in the model's answers? Try keys alone: 2 bits for them, 8 for the values. A step is
# a group's range over 3, and the error grows with its square. So you need the mean of the squared step
# over all groups, not the loudest channel.

# %%
group = 32  # tokens of a key channel that share a scale; as many of the newest stay in float32
rough = QuantizedCache(config, bits=2, group_size=group, residual=group)
cut = (longest - group) // group * group  # tokens in few bits
parts = (longest - cut) / longest, cut / longest * rough.bits_per_value / 32
print(
    f"2 bits of 32 are {2 / 32:.2%}. Here {longest - cut} of {longest} tokens in float32 take {parts[0]:.2%}, "
    f"codes and scales of the others\n{cut}/{longest} * {rough.bits_per_value:g}/32 = {parts[1]:.1%}: together {sum(parts):.1%}."
)
predict("KL of 2-bit keys per token, over per channel", None, unit="times")

# %% tags=["nbval-ignore-output"]
from slmlab.measure import position_kl_nats


@torch.inference_mode()
def damage(cache, chunk=32):
    """(longest,): KL to the full cache in nats, of each token."""
    logits = torch.cat([model(part, cache)[0] for part in ids.split(chunk, dim=1)])
    return position_kl_nats(logits, reference)


def squared_range(x, along):
    """Mean over groups of (largest - smallest) squared; along 2: a channel, 3: a token."""
    ranges = [part.amax(along) - part.amin(along) for part in x.split(group, along)]
    return torch.cat([r.square().flatten() for r in ranges]).mean().item()


for which, (name, bits) in enumerate((("keys", (2, 8)), ("values", (8, 2)))):
    kls = {
        per: damage(QuantizedCache(config, bits[0], value_bits=bits[1], **{f"{name}_per": per}))
        for per in ("channel", "token")
    }
    x = torch.stack([pair[which][0, :, :cut] for pair in held])  # (layer, kv_head, cut, head_dim)
    for per, kl in kls.items():
        error = kl.std().item() / longest**0.5
        print(f"2-bit {name:6} per {per:7}: KL {kl.mean():.4f} (s.e. {error:.4f}) nats a token")
    times = (kls["token"].mean() / kls["channel"].mean()).item()
    rule = squared_range(x, 3) / squared_range(x, 2)
    print(f"    per token over per channel: {times:.2f} times; the squared ranges say {rule:.2f}")
    if name == "keys":
        measured("KL of 2-bit keys per token, over per channel", times)
apart = kls["channel"] - kls["token"]  # of the values, token by token
told = apart.mean().abs() > 2 * apart.std() / longest**0.5
print(
    f"KIVI found values better per token; here per channel does {1 / times:.2f} times the damage"
    + ("." if told else ", a difference within the noise.")
)

# %% [markdown]
# That is this model, and one text: measure yours. The squared ranges count errors, not what attention
# makes of them. Now the whole trade, with the groups as KIVI has them:
# fewer bits, or fewer tokens?

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache_quality_plots import bytes_and_damage

ways = {
    "fewer bits": {f"{b} bits": QuantizedCache(config, bits=b) for b in (8, 4, 2)},
    "a window": {
        f"window {w}": SlidingWindowCache(config, window=w)
        for w in (256, 128, 64, 32)
        if w < longest
    },
}
lines = {kind: [] for kind in ways}
for kind, caches in ways.items():
    for name, cache in caches.items():
        kl = damage(cache).mean().item()
        lines[kind].append((name, 100 * cache.nbytes / filled.nbytes, kl))
        print(f"{name:10} {lines[kind][-1][1]:5.1f}% of the bytes  KL {kl:.2g} nats a token")
four = lines["fewer bits"][1]
larger = [point for point in lines["a window"] if point[1] >= four[1]] or lines["a window"][:1]
rival = min(larger, key=lambda point: point[1])
title = (
    f"{rival[0].capitalize()} ({rival[1]:.0f}% of the bytes) costs {rival[2] / four[2]:,.0f} times the KL of "
    f"4 bits ({four[1]:.0f}%)"
)
display(bytes_and_damage(lines, title))

# %% [markdown]
# Build it: [keys per channel, values per token](exercise:kv.quantize_cache). Then decide
# [which of the two gets the bits](exercise:kv.choose_bits).
#
# Time is the third side. A smaller cache is read faster, and what was packed must be unpacked at
# every step. Which of the two counts here?

# %% tags=["nbval-ignore-output"]
plain = stepper(ContiguousCache(config, max_length=longest), longest)
for name, cache in (
    ("int4, keys per channel", QuantizedCache(config, bits=4)),
    ("window 64", SlidingWindowCache(config, window=64)),
):
    timed = interleaved(stepper(cache, longest), plain, repeats=15)
    low, high = timed.ratio_low, timed.ratio_high
    longer = sum(pair > 1 for pair in timed.ratios)  # of 15 equal ones 13 are rarer than 1 in 100
    verdict = "slower" if longer > 12 else "faster" if longer < 3 else "cannot tell"
    print(
        f"{name:23} {timed.ratio:.2f} times the time of a step with the full cache "
        f"(pairs from {low:.2f} to {high:.2f}, longer in {longer} of {timed.n}: {verdict})"
    )
share = filled.nbytes / (filled.nbytes + model_bytes(model))
scatter = (
    f", less than these timings scatter ({low:.2f} to {high:.2f})" if share < high - low else ""
)
print(f"At {longest} tokens the cache is {share:.0%} of the bytes a step reads.")
print(f"At most {share:.0%} could be saved{scatter}.")

# %% [markdown]
# ## Play: which model holds the longest text?
#
# You have seen shared heads, windows and bits one at a time, and a cache lies next to weights of
# very different sizes. **In 2 GB, next to weights in int4-g32 and with a float16 cache: which
# published model holds the longest conversation?** It is not the smallest. Move `model` and read
# where the line crosses 2 GB. Then 8 GB.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache import explorer, fits_beside_weights, tokens_text

explorer(lm)

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.kv_cache import longest as holds_most

for memory in (2, 8):
    held = {name: fits_beside_weights(shape, memory) for name, shape in published.items()}
    print(f"in {memory} GB: " + "; ".join(f"{name} {tokens_text(n)}" for name, n in held.items()))
    print(f"        the longest: {holds_most(memory)}")
gemma = published["Gemma-3-1B"]
local = gemma.layer_types.count("sliding_attention")
print(
    f"Gemma-3-1B has {gemma.num_key_value_heads} KV head, and {local} of its "
    f"{gemma.num_hidden_layers} layers stop growing at {gemma.sliding_window} tokens. Mistral-7B-v0.1 stops in "
    f"every layer, at {published['Mistral-7B-v0.1'].sliding_window:,}: once that fits, any length does."
)

# %% [markdown]
# What fits is not what a model can use: each was trained up to some length, and the widget says so.
#
# ## Explain
#
# Say it in two sentences: what does a cache save and what does it cost, and why does the side matter
# along which a group of keys runs?
#
# <details><summary>A model answer</summary>
#
# A cache keeps every token's keys and values, so a step computes one token; it pays with bytes that
# grow with layers and length. Keys have channels that are loud in every token, so a scale per channel
# spares the quiet ones; measure values before you decide.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
from slmlab.checking import Question, ask

mistral, llama = published["Mistral-7B-v0.1"], published["Llama-2-7B"]
packed = QuantizedCache(config, bits=4)
damage(packed)
ask(
    Question(
        "A 7B model with 32 layers, 32 query heads, each with its own KV head, head_dim 128: the fp16 cache of 4,096 tokens? And with 8 KV heads?",
        f"2 * 32 * 32 * 128 * 2 bytes = {kv_bytes(llama, 1) / 1024:.0f} KiB a token, {bytes_text(kv_bytes(llama, 4096))} in all. With "
        f"8 KV heads a quarter: {bytes_text(kv_bytes(mistral, 4096))}. The query heads do not enter: 32 here is the number of KV heads.",
    ),
    Question(
        "Mistral-7B-v0.1 reads 32,768 tokens with a window of 4,096. How large is its cache, and what is lost?",
        f"{bytes_text(kv_bytes(mistral, 32768))}, as at 4,096 tokens: each layer keeps 4,096, and none sees further back. Stacked "
        f"layers could pass on what they saw. In this model, which was not trained so, {sum(lost)} of {len(lost)} answers survived whose "
        f"pair had left the window, and recall goes from {shares[-1]:.0%} to {shares[1]:.0%} at a window of {windows[1]}.",
    ),
    Question(
        "Does a 4-bit cache take a quarter of an fp16 one?",
        f"No: a scale and a minimum for 32 numbers make it {packed.bits_per_value:.1f} bits, and the newest tokens stay in full "
        f"precision, {packed.length - packed.quantized_length} of {packed.length} here. In all this one takes "
        f"{packed.nbytes / kv_bytes(config, packed.length):.2f} of the bytes of fp16 (its newest tokens are float32).",
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 05 puts many such caches into one memory, in blocks, and serves them.
#
# Sources: Ainslie et al. 2023, [arXiv:2305.13245](https://arxiv.org/abs/2305.13245), section 2 (grouped
# queries). Liu et al. 2024, [arXiv:2402.02750](https://arxiv.org/abs/2402.02750), section 3 (keys per
# channel). The code of this lesson: `slmlab/kv/contiguous.py`, `window.py` and `quantized.py`.
