# %% [markdown]
# # Exercises: paged serving
# Eight exercises, about 80 minutes; each stands alone. A cell with `@exercise(...)` checks your
# function when you run it: replace the line that raises `NotImplementedError`, run, read what comes
# back. The cell for hints is the last but one; `hint("paging.slot_mapping")` works in any cell.
#
# Your functions need the standard library. What comes in is plain data: lists, ints, strings.
# Tokens are numbers; a **block** holds `block_size` of them; a **block table** lists a sequence's
# blocks in the order of its text.

# %%
import sys

if "google.colab" in sys.modules:  # On Colab: install the package, leave Colab's torch alone.
    get_ipython().run_line_magic("pip", "install -q --no-deps git+https://github.com/slmlab/slmlab")

from typing import Any

from slmlab import exercise, hint, progress

# %% [markdown]
# ## 1. Slots of a ragged batch
# One forward pass stores the new tokens of several sequences. The pool is one long row of slots:
# block `b` owns slots `b * block_size` to `(b + 1) * block_size - 1`. Say where each token goes.
#
# - **In**: `block_tables`, one list of blocks a sequence, long enough; `stored`, how many tokens each
#   has already; `counts`, how many it adds; `block_size`.
# - **Out**: a list of slots, sequence after sequence, each in the order of its text.
# - **Example**: table `[7, 2]`, 3 stored, 2 new, blocks of 4: `[31, 8]`.
# - **Must hold**: no two tokens share a slot.


# %%
@exercise("paging.slot_mapping")
def slot_mapping(
    block_tables: list[list[int]], stored: list[int], counts: list[int], block_size: int
) -> list[int]:
    """Slots of the new tokens, sequence after sequence."""
    ### BEGIN SOLUTION
    slots = []
    for table, start, count in zip(block_tables, stored, counts):
        for position in range(start, start + count):
            block, offset = divmod(position, block_size)
            slots.append(table[block] * block_size + offset)
    return slots
    ### END SOLUTION


# %% [markdown]
# ## 2. On paper: how many requests fit
# No loops, no library: put the numbers together on paper, then write the one line.
#
# | server | |
# |---|---|
# | layers | 28 |
# | query heads, KV heads, head_dim | 24, 8, 128 |
# | cache | fp16 |
# | KV memory | 6 GB (6e9 bytes) |
# | a request stores, on average | 420 tokens |
# | the longest request that is allowed | 4,096 tokens |
# | paged, blocks of | 32 tokens |
#
# - **Out**: one number, how many requests the memory holds at once. It passes within 2%.
# - **Example**: 2 layers, 1 KV head of 64, fp16, requests of 85 tokens in blocks of 30: 1.024 MB
#   (1.024e6 bytes) hold 20.
# - **Must hold**: a request's last block counts as half empty.


# %%
@exercise("paging.requests_that_fit")
def requests_that_fit() -> float:
    """Requests in the memory above."""
    ### BEGIN SOLUTION
    token_bytes = 2 * 28 * 8 * 128 * 2
    request_bytes = (420 + 32 / 2) * token_bytes
    return 6e9 / request_bytes
    ### END SOLUTION


# %% [markdown]
# ## 3. The longest shared prefix
# Keys and values of a token depend on everything before it. So a full block is named by a hash over
# its parent's name and its own tokens: equal names mean equal text from the start on.
#
# Prompts arrive one after the other. Each takes the blocks that already hold its beginning, computes
# the rest, and leaves all its full blocks under their names. Nothing is ever thrown away here.
#
# - **In**: `prompts`, lists of token ids; `block_size`.
# - **Out**: for each prompt, how many of its tokens it takes: full blocks from its start on, as many
#   as are known. At least one token must be left to compute.
# - **Example**: blocks of 2, prompts `[1, 2, 3]`, `[1, 2]`, `[1, 2, 9]`: `[0, 0, 2]`.
# - **Must hold**: what is taken equals the beginning of an earlier prompt, token by token. Any hash
#   will do; a tuple can stand in for one.


# %%
@exercise("paging.prefix_hits")
def prefix_hits(prompts: list[list[int]], block_size: int) -> list[int]:
    """Tokens that each prompt takes from earlier ones."""
    ### BEGIN SOLUTION
    from hashlib import sha256

    known, taken = set(), []
    for prompt in prompts:
        names, parent = [], b""
        for start in range(0, len(prompt) - block_size + 1, block_size):
            text = ",".join(map(str, prompt[start : start + block_size])).encode()
            parent = sha256(parent + text).digest()
            names.append(parent)
        count = 0
        while count < (len(prompt) - 1) // block_size and names[count] in known:
            count += 1
        taken.append(count * block_size)
        known.update(names)
    return taken
    ### END SOLUTION


# %% [markdown]
# ## 4. Repair this: a prompt known whole
# This plans the prefill of a prompt whose first `cached_blocks` blocks are known: what it takes, and
# the chunks `[start, end)` that run through the model. Ask it for a prompt that is known whole.


# %%
def plan_as_found(
    prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int
) -> tuple[int, list[list[int]]]:
    chunks = []
    for start in range(cached_blocks * block_size, prompt_tokens, chunk):
        chunks.append([start, min(start + chunk, prompt_tokens)])
    return cached_blocks, chunks


print("9 tokens, 2 blocks of 4 known:", plan_as_found(9, 2, block_size=4, chunk=16))
print("8 tokens, 2 blocks of 4 known:", plan_as_found(8, 2, block_size=4, chunk=16))

# %% [markdown]
# vLLM crashed on it in 2024, with tensors of size zero
# ([pull request 3239](https://github.com/vllm-project/vllm/pull/3239)). Logits come from a token
# that runs. And a token that runs writes its keys, so its block must not be shared.
#
# - **In**: `prompt_tokens`, at least 1; `cached_blocks`, known full blocks from the start on, within
#   the prompt; `block_size`; `chunk`, tokens a chunk.
# - **Out**: how many known blocks are taken, as many as possible; and the chunks after them, each
#   `[start, end]`, the last one ending with the prompt.
# - **Example**: 9 tokens, 2 known blocks of 4, chunks of 16: `(2, [[8, 9]])`.
# - **Must hold**: at least one token runs, and none of those that run lies in a block taken.


# %%
@exercise("paging.last_token")
def plan_prefill(
    prompt_tokens: int, cached_blocks: int, block_size: int, chunk: int
) -> tuple[int, list[list[int]]]:
    """Blocks taken, and the chunks to compute."""
    ### BEGIN SOLUTION
    taken = cached_blocks
    while taken * block_size > prompt_tokens - 1:
        taken -= 1
    chunks = []
    for start in range(taken * block_size, prompt_tokens, chunk):
        chunks.append([start, min(start + chunk, prompt_tokens)])
    return taken, chunks
    ### END SOLUTION


# %% [markdown]
# ## 5. Repair this: a write into a shared block
# Two answers to one prompt share its blocks until one of them writes. This replays a trace of
# appends and forks, and then reads every sequence back through its table.


# %%
def replay_as_found(trace: list[list[Any]], block_size: int) -> dict[str, Any]:
    blocks, users, tables, lengths = [], [], [[]], [0]
    for what, s, token in trace:
        if what == "fork":  # a new sequence that shares every block of sequence s
            tables.append(list(tables[s]))
            lengths.append(lengths[s])
            for block in tables[s]:
                users[block] += 1
            continue
        offset = lengths[s] % block_size
        if offset == 0:
            tables[s].append(len(blocks))
            blocks.append([-1] * block_size)
            users.append(1)
        blocks[tables[s][-1]][offset] = token
        lengths[s] += 1
    texts = [
        [blocks[t[i // block_size]][i % block_size] for i in range(n)]
        for t, n in zip(tables, lengths)
    ]
    return {"texts": texts, "blocks": len(blocks)}


trace = [["append", 0, 5], ["fork", 0, 0], ["append", 0, 6], ["append", 1, 7]]
print(replay_as_found(trace, block_size=2))

# %% [markdown]
# xLLM's beam search had no such copy on one kind of device: beams that parted read stale memory
# ([pull request 1984](https://github.com/xLLM-AI/xllm/pull/1984)).
#
# - **In**: `trace`, steps `["append", sequence, token]` and `["fork", sequence, 0]`; the first
#   sequence is 0, a fork makes the next number. `block_size`.
# - **Out**: a dict. `"texts"`: the tokens of every sequence, read through its table. `"blocks"`: how
#   many blocks were ever allocated.
# - **Example**: the trace above gives `{"texts": [[5, 6], [5, 7]], "blocks": 2}`.
# - **Must hold**: nobody reads what another sequence wrote after the fork; no block is copied that
#   its holder alone could have written to; full blocks stay shared.


# %%
@exercise("paging.copy_on_write")
def replay(trace: list[list[Any]], block_size: int) -> dict[str, Any]:
    """{"texts": tokens of every sequence, "blocks": how many were allocated}."""
    ### BEGIN SOLUTION
    blocks, users, tables, lengths = [], [], [[]], [0]
    for what, s, token in trace:
        if what == "fork":
            tables.append(list(tables[s]))
            lengths.append(lengths[s])
            for block in tables[s]:
                users[block] += 1
            continue
        offset = lengths[s] % block_size
        if offset == 0 or users[tables[s][-1]] > 1:
            content = [-1] * block_size
            if offset > 0:
                old = tables[s].pop()
                users[old], content = users[old] - 1, list(blocks[old])
            tables[s].append(len(blocks))
            blocks, users = [*blocks, content], [*users, 1]
        blocks[tables[s][-1]][offset], lengths[s] = token, lengths[s] + 1
    every = [[token for block in table for token in blocks[block]] for table in tables]
    return {"texts": [e[:n] for e, n in zip(every, lengths)], "blocks": len(blocks)}
    ### END SOLUTION


# %% [markdown]
# ## 6. One step of the scheduler
# Before each forward pass a serving engine chooses which tokens run. The rules of this one:
#
# 1. Running requests with 1 pending token decode; they come first, then running requests with more
#    pending, each group in order. Each gets its pending tokens, or what is left of the budget. It
#    takes the blocks that its new tokens need; there are always enough for these.
# 2. Then waiting prompts start, in order. One starts if budget is left, fewer than `max_batch` run
#    (those just started count), and blocks for its **whole** prompt are free. It computes what the
#    budget allows and takes the blocks for that.
# 3. Where one cannot start, none behind it does.
#
# - **In**: `running`, a list of `[stored, pending]`; `waiting`, prompt lengths; `token_budget`;
#   `free_blocks`; `max_batch`; `block_size`.
# - **Out**: two lists: the tokens that each running request computes, 0 where none, in the order of
#   `running`; and those of each prompt that starts.
# - **Example**: budget 6, running `[[8, 7], [5, 1]]`, one waiting: `([5, 1], [])`.
# - **Must hold**: the counts never sum to more than the budget.


# %%
@exercise("paging.schedule_step")
def schedule_step(
    running: list[list[int]],
    waiting: list[int],
    token_budget: int,
    free_blocks: int,
    max_batch: int,
    block_size: int,
) -> tuple[list[int], list[int]]:
    """Tokens of each running request, tokens of each that starts."""

    ### BEGIN SOLUTION
    def blocks(tokens):
        return -(-tokens // block_size)

    counts, started = [0] * len(running), []
    decoding = [i for i, (_, pending) in enumerate(running) if pending == 1]
    others = [i for i, (_, pending) in enumerate(running) if pending > 1]
    for i in decoding + others:
        stored, pending = running[i]
        counts[i] = min(pending, token_budget)
        token_budget -= counts[i]
        free_blocks -= blocks(stored + counts[i]) - blocks(stored)
    for prompt in waiting:
        full = len(running) + len(started) >= max_batch
        if token_budget == 0 or full or blocks(prompt) > free_blocks:
            break
        started.append(min(prompt, token_budget))
        token_budget -= started[-1]
        free_blocks -= blocks(started[-1])
    return counts, started
    ### END SOLUTION


# %% [markdown]
# ## 7. Repair this: a freed block's name
# A freed block keeps its text until someone needs the block, so that the next request with that text
# need not compute it. Here every text fills one block, and a request ends before the next one comes.
# Each asks for a text; the answer says which block it reads and what it finds there.


# %%
def serve_as_found(texts: list[int], num_blocks: int) -> list[list[int]]:
    index = {}  # text -> block
    holds = {}  # block -> text
    queue = list(range(num_blocks))  # unused for longest first
    served = []
    for text in texts:
        block = index.get(text)
        if block is None:
            block = queue[0]
            index[text] = block
            holds[block] = text
        queue.remove(block)
        queue.append(block)
        served.append([block, holds[block]])
    return served


print("asked for 1, 2, 1 with one block; [block, text found]:", serve_as_found([1, 2, 1], 1))

# %% [markdown]
# The third request asked for text 1 and reads text 2: somebody else's prompt. Relatives, names that
# outlive what they named, were reported in kvcached
# ([issue 362](https://github.com/ovg-project/kvcached/issues/362)) and in vLLM
# ([issue 49125](https://github.com/vllm-project/vllm/issues/49125)).
#
# - **In**: `texts`, what each request asks for; `num_blocks`.
# - **Out**: for each request, `[block, text found in it]`. A text that is still held is read where it
#   is. Else the block that was unused for longest is overwritten; blocks 0, 1, ... come first.
# - **Example**: `[1, 2, 1]` with one block gives `[[0, 1], [0, 2], [0, 1]]`.
# - **Must hold**: everybody finds what they asked for, and what is still held is not written again.


# %%
@exercise("paging.stale_name")
def serve(texts: list[int], num_blocks: int) -> list[list[int]]:
    """[block, text found] of each request."""
    ### BEGIN SOLUTION
    index, holds, queue, served = {}, {}, list(range(num_blocks)), []
    for text in texts:
        block = index.get(text)
        if block is None:
            block = queue[0]
            if block in holds:
                del index[holds[block]]
            index[text] = block
            holds[block] = text
        queue.remove(block)
        queue.append(block)
        served.append([block, holds[block]])
    return served
    ### END SOLUTION


# %% [markdown]
# ## 8. Decide: a block size under a budget of time
# Small blocks waste little and share long beginnings, and their tables are long. What an entry costs
# is assumed here; the lesson measures whether it costs anything on your machine. You are scored by
# outcome: any choice that keeps the budget and takes at most 2% more places than the best that does
# is right.
#
# - **In**: `lengths`, tokens that each request stores; `shared`, how many of them, from the first on,
#   are the same in all; `sizes`, the block sizes on offer; `us_per_block`; `budget_us`.
# - **Count so**: a request's table has `ceil(length / size)` entries, shared or not; each costs
#   `us_per_block` microseconds a step. Blocks that hold nothing but shared tokens are stored once in
#   all. A block takes `size` places, however full.
# - **Out**: the size with the fewest places among those within the budget, or `None` where none is.
# - **Example**: lengths `[20, 20]`, 16 shared, sizes `[12, 8]`, 0.5 a block: blocks of 8 take 32
#   places and 3 microseconds, blocks of 12 take 36 and 2. With a budget of 2.5, `12`.
# - **Must hold**: every size with clearly fewer places breaks the budget.


# %%
@exercise("paging.choose_block")
def choose_block(
    lengths: list[int], shared: int, sizes: list[int], us_per_block: float, budget_us: float
) -> int | None:
    """The block size to run with, None where none keeps the budget."""
    ### BEGIN SOLUTION
    best, fewest = None, None
    for size in sizes:
        entries = sum((length + size - 1) // size for length in lengths)
        if entries * us_per_block > budget_us:
            continue
        saved = (len(lengths) - 1) * (shared // size)
        places = (entries - saved) * size
        if fewest is None or places < fewest:
            best, fewest = size, places
    return best
    ### END SOLUTION


# %% [markdown]
# Stuck? Write an exercise's id between the quotes, such as `paging.prefix_hits`, and run the next
# cell. The first run shows what must hold, the second a worked example, the third pseudocode.

# %%
stuck_at = ""
if stuck_at:
    hint(stuck_at)

# %% [markdown]
# How far you are in the whole workbook:

# %% tags=["nbval-ignore-output"]
progress()
