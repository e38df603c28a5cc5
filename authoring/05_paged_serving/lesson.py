# %% [markdown]
# # 05 · Paged serving: block tables, sharing, continuous batching
#
# *45 minutes · no GPU, no download · exercises: [05_paged_serving](../exercises/05_paged_serving.ipynb)*
#
# ## The memory is full. Of what?

# %%
import inspect
import sys
import textwrap

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

import torch

import slmlab
from slmlab import measured, predict
from slmlab.kv import BlockPool, ContiguousCache, PagedCache, kv_bytes
from slmlab.serving import Engine
from slmlab.widgets.paged_serving_bench import Ask, record, record_static, static_batches, trace

torch.set_num_threads(1)
torch.set_grad_enabled(False)
lm = slmlab.load()  # "tiny", or the model that SLMLAB_MODEL names
config = lm.model.config

# %% [markdown]
# Forty requests wait, a few long, most short. The server promises each of them room for the longest
# text it allows. So it cuts its KV memory into two reservations and serves two requests at a time.
# Nobody else fits. How much of that memory ever holds a token?

# %% tags=["nbval-ignore-output"]
longest = min(512, config.max_position_embeddings)
memory = 2 * longest  # tokens; the same for every server of this lesson
asks = trace(lm, requests=40, longest=longest)
engine = Engine(lm, num_blocks=2, block_size=longest, max_batch=2, prefix_sharing=False)
reserved = record(engine, asks, f"reserved to {longest}")
megabytes = kv_bytes(config, memory, dtype="float32") / 1e6
print(f"KV memory: {megabytes:.1f} MB, room for {memory} tokens, two requests at a time")
print(f"of all its places, over {reserved.passes} forward passes, {reserved.held:.1%} held a token")

# %% [markdown]
# Those are real passes of a real engine, a second ago. The authors of PagedAttention found 20.4% in
# a system that reserved like this (Kwon et al. 2023, section 1).
#
# Their idea is an operating system's: cut the memory into small **blocks** and give a request one
# when its last one is full. What is then wasted is the empty part of each request's last block.
# Two facts for a guess: blocks hold 16 tokens here, and the next cell prints how many tokens a
# running request stores. Of the places that requests have taken, which share is empty?
#
# Replace `None` by your number. You can leave it: the lesson then goes on without a score.

# %%
# A request runs for as many passes as its answer has tokens, and is on average halfway through it.
passes = [ask.max_new_tokens for ask in asks]
stored = sum(n * (len(ask.prompt) + n / 2) for ask, n in zip(asks, passes)) / sum(passes)
print(f"at a random moment a running request stores about {stored:.0f} tokens")
print("(long ones run longer and count more)")
predict("empty share of the places taken, blocks of 16", None, unit="%")

# %% [markdown]
# ## Two sequences by hand
#
# A pool of six blocks, four tokens each. Two sequences grow in turns. Watch their **block tables**.

# %%
text = lm.tokenizer.encode(slmlab.data.evaluation_set("prose").texts[0])
pool = BlockPool(config, num_blocks=6, block_size=4)
first, second = PagedCache(pool), PagedCache(pool)


def feed(cache, count):
    ids = torch.tensor([text[cache.length : cache.length + count]])
    return lm.model(ids, cache)[0, -1]  # (V,) logits after the last token


for cache, count in ((first, 3), (second, 6), (first, 3), (second, 1)):
    logits = feed(cache, count)
    name = "first " if cache is first else "second"
    print(f"{name} takes {count}: tables {first.block_table} and {second.block_table}")
block, offset = divmod(5, pool.block_size)
print(f"position 5 of the first: block {first.block_table[block]}, place {offset}")

# %% [markdown]
# The first sequence's text lies in two blocks that are no neighbours, and nothing was ever moved.
# Attention gathers the blocks in the order of the table. Build the gathering side:
# [slots of a ragged batch](exercise:paging.slot_mapping).
#
# Before a token is written, `reserve` makes room for it. These are the package's own lines. What
# stands between the two pieces is for blocks with several holders, and comes later.

# %%
code = inspect.getsource(PagedCache.reserve)
check = code[code.index("        needed =") : code.index("        pool, size")]
grow = code[code.index("        while len(self.block_table)") :]
print(textwrap.dedent(check) + "...\n" + textwrap.dedent(grow).rstrip())

# %%
# Can attention tell the difference? The second sequence once more, in a cache that reserves.
plain = ContiguousCache(config, max_length=longest)
wanted = lm.model(torch.tensor([text[:7]]), plain)[0, -1]  # (V,)
worst = (logits - wanted).abs().max().item()
assert worst <= 1e-4 * max(1, wanted.abs().max().item())
print(f"Logits of the second sequence, paged against contiguous: at most {worst:.1e} apart.")

# %% tags=["nbval-ignore-output"]
# Now the forty requests, in the same memory, with blocks of 16.
engine = Engine(lm, num_blocks=memory // 16, block_size=16, max_batch=32, prefix_sharing=False)
paged = record(engine, asks, "paged, blocks of 16")
measured("empty share of the places taken, blocks of 16", 100 * paged.waste)
most = max(sum(r.running for r in frame.requests) for frame in paged.frames)
for run in (reserved, paged):
    print(f"{run.name:20} {run.passes:4} passes, empty of what was taken: {run.waste:5.1%}")
print(f"Up to {most} requests ran at once where two did before.")

# %% [markdown]
# ## Why 16?
#
# If a request ends anywhere in its last block, half a block is empty on average: (size - 1) / 2
# places. The dashed line says what share that makes. The dots are twelve of the requests, run at
# each size.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.paged_serving_plots import waste_plot

sizes, few = [size for size in (1, 4, 8, 16, 32, 64, 128, 512) if size <= longest], asks[:12]
runs = {}
for size in sizes * 2:  # twice, for the seconds
    blocks = sum(-(-(len(a.prompt) + a.max_new_tokens) // size) for a in few)
    run = record(Engine(lm, blocks, size, max_batch=12, prefix_sharing=False), few)
    runs.setdefault(size, []).append(run)
waste = [runs[size][0].waste for size in sizes]
held = [r.stored for frame in runs[1][0].frames for r in frame.requests if r.running]
stored = sum(held) / len(held)
expected = [(size - 1) / 2 / ((size - 1) / 2 + stored) for size in sizes]
seconds = {size: min(run.seconds[-1] for run in runs[size]) for size in sizes}
print("entries in the table of an average request:", {b: -(-round(stored) // b) for b in sizes})
print("seconds, the better of two runs:", {size: round(s, 2) for size, s in seconds.items()})
longer = seconds[1] / seconds[16]
shows = "the table's length does not show" if longer < 1.25 else "the table's length shows"
print(f"Blocks of 1 took {longer:.2f} times as long as blocks of 16: on this machine {shows}.")
print(
    f"A block longer than a request ({stored:.0f} tokens on average, these twelve) is less than half"
)
print(
    f"full: {waste[-1]:.0%} empty at {longest}, where half a block would leave {expected[-1]:.0%}."
)
waste_plot(
    sizes,
    expected,
    waste,
    f"Blocks of 16 leave {waste[sizes.index(16)]:.0%} empty, "
    f"a reservation of {longest} leaves {waste[-1]:.0%}",
)

# %% [markdown]
# Smaller wastes less and makes longer tables; the cell says whether you can measure what that costs.
# PagedAttention's authors chose 16 for their GPU kernels: smaller blocks leave a GPU's parallelism
# unused, larger ones waste more and are shared less (section 7.2). On paper:
# [how many requests fit](exercise:paging.requests_that_fit). Decide:
# [a block size under a budget of time](exercise:paging.choose_block).
#
# ## Waiting for the slowest
#
# Blocks alone do not make a server fast. A **static batch** runs until its last answer is done, and
# only then takes new requests; short answers leave their rows idle. Each row is as wide as the
# longest prompt plus the longest answer in the batch. **Continuous batching** chooses the batch anew
# at every forward pass: who is done leaves, who waits comes in.
#
# The next run serves the same requests in static batches, as many rows as the same memory holds. That
# flatters static batches: their width uses the answers' true lengths, which no server knows in
# advance. Facts for a guess: the next cell prints how many batches there are, how long answers are,
# and the passes that the paged run took.

# %%
batches = static_batches(asks, memory)
rows = [len(batch) for batch in batches]
answers = sorted(ask.max_new_tokens for ask in asks)
print(f"the memory holds {min(rows)} to {max(rows)} rows at a time: {len(rows)} static batches")
print(
    f"answers: half have at most {answers[20]} tokens, one in eight more than {answers[34]}, "
    f"the longest {answers[-1]}"
)
print(f"paged: {paged.passes} passes")
predict("passes of static batches, over continuous ones", None, unit="times")

# %% tags=["nbval-ignore-output"]
static = record_static(lm, asks, memory, "static batches")
measured("passes of static batches, over continuous ones", static.passes / paged.passes)
runs = (reserved, static, paged)
print(
    f"{'one run each':20} passes  new a pass  tokens/s  first token: half within, slowest  computed"
)
for run in runs:
    new = sum(map(len, run.tokens))
    print(
        f"{run.name:20} {run.passes:6}  {new / run.passes:10.1f}  {run.tokens_per_second:8.0f}  "
        f"{run.ttft(0.5):24.2f} s {run.ttft(1):7.2f} s  {run.computed_tokens:8}"
    )
again = paged.computed_tokens - reserved.computed_tokens
print(
    "computed: tokens that ran through the model; reserved, each ran once. Static batches also run"
)
print(f"padding and rows that are done; paged computed {again} twice, see *When blocks run out*.")
same = sum(a == b == c for a, b, c in zip(*(run.tokens for run in runs)))
print(f"{same} of {len(asks)} answers are the same, token by token, from all three.")
print("Seconds are this process's own, of one run: other programs do not count.")

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.paged_serving_map import memory_map

memory_map(
    runs,
    f"Same requests, same memory: paging needs {reserved.passes / paged.passes:.1f} times fewer "
    f"passes than reserving, {static.passes / paged.passes:.1f} times fewer than static batches",
)

# %% [markdown]
# Every answer is the same; only who waits for whom has changed. Write the choice that an engine makes
# before each pass: [one step of the scheduler](exercise:paging.schedule_step).
#
# ## Sharing a prompt
#
# Requests to one assistant begin with the same instructions. Their keys and values are equal, so one
# set of blocks can serve all. But how does the engine know? A block's keys depend on all the text
# before it, so its name must too: a hash over the parent's name and its own tokens.

# %%
from slmlab.kv.prefix import block_hashes

head, tail, other = text[:4], text[4:8], text[20:24]
for label, ids in (
    ("a b", head + tail),
    ("c b", other + tail),
    ("a b, and 3 more", head + tail + other[:3]),
):
    print(f"{label:16}", [name.hex()[:8] for name in block_hashes(ids, block_size=4)])
print("The block b has another name behind c. A block that is not full has none.")

# %% [markdown]
# Eight requests, one beginning. Without sharing every prompt token is computed. With it, the first
# request computes its whole prompt; what do the others have to compute?

# %%
shared, own = min(160, longest // 3), 8
eight = [Ask(tuple(text[:shared] + text[200 + 20 * i : 200 + 20 * i + own]), 8) for i in range(8)]
total = sum(len(ask.prompt) for ask in eight)
print(f"{len(eight)} prompts of {shared + own} tokens, the first {shared} the same; blocks of 16")
predict("prompt tokens computed with sharing, of all", None, unit="%")

# %% tags=["nbval-ignore-output"]
found = {}
for name, sharing, every in (  # every=1: one request a pass; 0: all before the first pass
    ("no sharing", False, 1),
    ("sharing", True, 1),
    ("sharing, all at once", True, 0),
):
    engine = Engine(lm, num_blocks=128, token_budget=4096, prefix_sharing=sharing)
    run = record(engine, eight, every=every)
    computed = run.computed_tokens - sum(len(tokens) - 1 for tokens in run.tokens)
    found[name] = run
    print(f"{name:21} {computed:5} of {total} prompt tokens computed, {computed / total:6.1%}")
    if name == "sharing":
        measured("prompt tokens computed with sharing, of all", 100 * computed / total)
assert found["sharing"].tokens == found["no sharing"].tokens
print(
    "Same answers. In the last line all eight came in one pass, and nothing was there yet to share."
)

# %% [markdown]
# The last line is no bug of ours alone: [nano-vllm discusses it](https://github.com/GeeeekExplorer/nano-vllm/issues/219).
# Build the look-up, [the longest shared prefix](exercise:paging.prefix_hits), and repair the case that
# crashed vLLM, [a prompt known whole](exercise:paging.last_token).
#
# What if two sequences share a block that is **not** full, as two answers to one prompt do? The
# first to write takes a copy: **copy-on-write**. These are the lines of `reserve` that were left out;
# `forget` takes the name from a block whose text is about to change.

# %%
print(
    textwrap.dedent(code[code.index("        for index, block") : code.index("        while len")])
)
pool = BlockPool(config, num_blocks=6, block_size=4)
one = PagedCache(pool)
feed(one, 6)
two = one.fork()


def show(when):
    holders = {
        block: pool.references(block) for block in sorted({*one.block_table, *two.block_table})
    }
    print(f"{when:20} tables {one.block_table} {two.block_table}  holders of each block {holders}")


show("after the fork")
feed(one, 1)
show("one has written")
feed(two, 1)
show("two has written")

# %% [markdown]
# The full block stays shared. Forgetting the copy runs without an error:
# [repair it](exercise:paging.copy_on_write).
#
# ## A long prompt arrives
#
# A pass takes as long as its tokens. When a long prompt comes in whole, every stream that runs stands
# still for it. So engines cut prompts into **chunks** that fit a budget of tokens a pass.

# %% tags=["nbval-ignore-output"]
import time

from slmlab.widgets.paged_serving_plots import gaps_plot

long = tuple((text * 2)[: longest * 3 // 4])


def gaps_of_a_stream(token_budget):
    engine = Engine(lm, 64, 16, token_budget=token_budget, prefix_sharing=False)
    stream = engine.submit(text[:8], max_new_tokens=36)
    late, gaps, waited, last = None, [], 0.0, time.process_time()
    while not engine.idle:
        if late is None and len(gaps) == 10:
            late, came = engine.submit(long, max_new_tokens=1), time.process_time()
        for output in engine.step():
            now = time.process_time()
            if output.request_id == stream:
                gaps.append(1e3 * (now - last))
                last = now
            else:
                waited = 1e3 * (now - came)
    return gaps[1:], waited  # before token 2, 3, ...: the first comes after the stream's prompt


whole, waited_whole = gaps_of_a_stream(token_budget=4096)
chunks, waited_chunks = gaps_of_a_stream(token_budget=32)
for name, gaps, waited in (("whole", whole, waited_whole), ("chunks", chunks, waited_chunks)):
    print(
        f"{name:6}: longest gap {max(gaps):6.1f} ms, all {len(gaps)} gaps {sum(gaps):6.1f} ms; "
        f"the newcomer's first token after {waited:6.1f} ms"
    )
print("The same tokens run in both: chunks only spread the work out.")
print(f"In chunks the newcomer waits {waited_chunks / waited_whole:.1f} times as long.")
gaps_plot(
    {"whole": whole, "chunks of 32": chunks},
    f"A prompt of {len(long)} tokens arrives: in chunks, the longest wait of a stream is "
    f"{max(whole) / max(chunks):.1f} times shorter",
)

# %% [markdown]
# Smaller pieces, shorter waits for the stream, more passes for the newcomer: the budget is the dial
# between the two.
#
# ## When blocks run out
#
# Admitted requests grow, and nobody knows how far. When no block is free, the youngest request gives
# all of its own back and waits. It keeps its tokens; their keys are computed again. That is
# **preemption by recompute**.

# %% tags=["nbval-ignore-output"]
ten = asks[:10]
needed = max(-(-(len(ask.prompt) + ask.max_new_tokens) // 16) for ask in ten)
engine = Engine(lm, num_blocks=needed + 1, block_size=16, prefix_sharing=False)
tight = record(engine, ten)
same = sum(a == b for a, b in zip(tight.tokens, paged.tokens))
least = sum(len(ask.prompt) + len(tokens) - 1 for ask, tokens in zip(ten, tight.tokens))
preempted = engine.stats["preemptions"]
print(f"{needed + 1} blocks for ten requests, the largest of which needs {needed}")
print(f"{preempted} times a request gave its blocks back; {same} of {len(ten)} answers unchanged")
print(
    f"computed: {tight.computed_tokens} tokens, at least {least} were needed: {tight.computed_tokens / least - 1:+.0%}"
)

# %% [markdown]
# No answer changed, and work was done twice. How much memory buys that off? It depends on who
# overlaps with whom, on what was shared and on what a freed block still holds. You will see below.
#
# ## A bug that runs
#
# A freed block keeps its text and its name until someone needs the block: the next request with that
# beginning saves the work. When the block is taken over, its old name must go. Relatives, names that
# outlive what they named, were reported in
# [kvcached](https://github.com/ovg-project/kvcached/issues/362) and in
# [vLLM](https://github.com/vllm-project/vllm/issues/49125). Here is an engine where the name stays.
# Two checks that people write pass.


# %%
def healthy():
    return Engine(lm, num_blocks=8, max_batch=1)


def suspect():
    engine = healthy()
    engine.pool.prefixes.forget = lambda block: (
        None
    )  # a block that is taken over keeps its old name
    return engine


people = [text[60 * i : 60 * i + 40] for i in range(6)]
for make in (healthy, suspect):
    engine = make()
    twice = engine.generate([people[0]], 8) == engine.generate([people[0]], 8)
    hit, pool = engine.stats["prefix_hit_rate"], engine.pool
    whole = pool.num_free == pool.num_blocks and pool.num_used == 0
    print(
        f"{make.__name__:8} twice the same: {twice}, prompt tokens shared: {hit:.0%}, no block lost: {whole}"
    )

# %% [markdown]
# Find it by a property: **the same prompt gives the same tokens, whoever was served before.** Let the
# machine look for the fewest people in between that break it.


# %%
def smallest_counterexample(make):
    for between in range(len(people)):
        engine = make()
        before = engine.generate([people[0]], 8)[0]
        engine.generate(people[1 : 1 + between], 8)
        after = engine.generate([people[0]], 8)[0]
        if after != before:
            return between, before, after
    return None


print("healthy:", smallest_counterexample(healthy))
broken = smallest_counterexample(suspect)
assert broken is not None
between, before, after = broken
print(f"suspect: {between} others in between are enough")
print("  first answer: ", repr(lm.tokenizer.decode(before)))
print("  second answer:", repr(lm.tokenizer.decode(after)))

# %% [markdown]
# The second answer was computed on somebody else's text: a wrong answer, and a leak. A test that
# never fills the pool passes for ever. [Repair it](exercise:paging.stale_name).
#
# ## Play: how small may the pool be?
#
# Nine requests, one every second pass; every second one begins with the same 40 tokens. A letter is
# a request, a hatched block has several holders, *kept* means free with a text that can still be
# taken up. Move the pass and watch who gives back what. Then move the pool.
# **How many blocks does this trace need before no token is computed twice?**

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.paged_serving import Runs, never_twice, scrubber

recorded = Runs(lm)
scrubber(recorded)

# %% tags=["nbval-ignore-output"]
for blocks in recorded.pools:
    run = recorded.recordings[blocks]
    again = recorded.twice(blocks)[-1]
    print(
        f"{blocks:3} blocks: {run.passes:3} passes, preempted {run.frames[-1].preemptions} times, "
        f"{again:4} tokens twice ({again / run.computed_tokens:.0%} of the work)"
    )
roomy = recorded.recordings[recorded.pools[-1]]
peak, after = max(roomy.used), max(frame.num_used for frame in roomy.frames)
enough = never_twice(recorded)
print(
    f"Enough: {enough or f'more than {recorded.pools[-1]}'} blocks. "
    f"With room for all, {peak} were in use at most during a pass ({after} when it had ended)."
)

# %% [markdown]
# ## Others' numbers, and a server
#
# Published: Kwon et al. 2023 ([arXiv:2309.06180](https://arxiv.org/abs/2309.06180)), figure 2 and
# section 6.2. Measured: ours beside other engines on one thread, by `make prove`.

# %% tags=["nbval-ignore-output"]
from slmlab.widgets.paged_serving_race import HOW_TO_MAKE_IT, published, race_text

theirs = published()
print(
    f"memory that holds a token, reserved to the maximum: {theirs['reserve_to_maximum']:.1%} theirs, {reserved.held:.1%} here"
)
batched = theirs["batched"]
rows = {
    run.name: sum(r.running for frame in run.frames for r in frame.requests) / run.passes
    for run in (reserved, paged)
}
print(
    f"requests in a batch, paged over reserved: {batched['vLLM'] / batched['Orca (Max)']:.1f} times theirs, {rows[paged.name] / rows[reserved.name]:.1f} times here"
)
print(race_text() or HOW_TO_MAKE_IT)

# %% [markdown]
# The engine of this lesson speaks OpenAI's protocol. In a terminal with slmlab's environment active
# (`source .venv/bin/activate` in a checkout): `pip install openai`, then `slmlab serve`. In Python:
#
# ```python
# from openai import OpenAI
#
# client = OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
# answer = client.completions.create(model="tiny", prompt="def main(", max_tokens=32, temperature=0)
# print(answer.choices[0].text)
# ```
#
# ## Explain
#
# Say it in two sentences: what does a block table buy that a reservation cannot, and why does an
# engine choose its batch anew at every pass?
#
# <details><summary>A model answer</summary>
#
# A block table lets a request take memory as it grows, so at most its last block is partly empty, and
# the same blocks can stand in several tables, which shares prompts. Choosing the batch at every pass
# lets a finished request's place and blocks go to the next one at once, where a static batch keeps
# them until its longest answer is done.
#
# </details>
#
# ## Three interview questions

# %% jupyter={"source_hidden": true} tags=["nbval-ignore-output"]
from slmlab.checking import Question, ask

full, rest = divmod(1000, 16)
ask(
    Question(
        "A server reserves 4,096 tokens a request and the average one stores 512. What share is wasted, and what with blocks of 16?",
        f"{1 - 512 / 4096:.1%}. Paged, {15 / 2} places of the last block are empty on average: {7.5 / 519.5:.1%} of what is taken.",
    ),
    Question(
        "Eight samples from one prompt of 1,000 tokens, blocks of 16. How many blocks when each has written its first token?",
        f"{full} full blocks are shared. The last {rest} tokens lie in a block that is not full: seven of the eight copy it and the last "
        f"one writes in place. {full + 8} blocks, where eight separate prompts take {8 * (full + 1)}.",
    ),
    Question(
        "A prompt of 8,192 tokens arrives, prefill runs at 2,000 tokens a second. How long do the others' streams stand still, and in chunks of 512?",
        f"{8192 / 2000:.1f} s when it runs whole. In chunks {512 / 2000:.2f} s at a time, with a token for every stream in between; "
        "its own first token comes no sooner.",
    ),
)

# %% [markdown]
# ## Your predictions so far

# %% tags=["nbval-ignore-output"]
from slmlab.checking import calibration_plot

calibration_plot()

# %% [markdown]
# **Where next:** lesson 06 guesses several tokens ahead and takes back what was wrong: `truncate` on
# a block table.
#
# Sources: Kwon et al. 2023, [arXiv:2309.06180](https://arxiv.org/abs/2309.06180), sections 4 and 4.5.
# Yu et al. 2022, Orca, OSDI '22 (continuous batching). Agrawal et al. 2023,
# [arXiv:2308.16369](https://arxiv.org/abs/2308.16369) (chunked prefill). The code of this lesson:
# `slmlab/kv/paged.py`, `prefix.py`, `pool.py` and `slmlab/serving/scheduler.py`.
