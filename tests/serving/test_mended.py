"""What a breaker found: one request's trouble stays its own, and misuse is told in a sentence."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx
import pytest
import torch
from torch import nn

import slmlab
from slmlab.generation.text_stream import TextStream
from slmlab.kv import BlockPool, ContiguousCache, OutOfBlocks, PagedBatch, PagedCache
from slmlab.serving import Engine
from slmlab.serving.http import create_app
from tests.kv import small_models
from tests.serving.oracle import assert_as_alone, language_model, prompts_of

POISON = 1999


def test_a_byte_fallback_tokenizer_that_takes_text_back() -> None:
    """An ASCII byte token, then one that makes both invalid: tokenizers' stream raises."""
    lm = language_model("stories260K")
    stream = TextStream(lm.tokenizer)
    pieces = [stream.push(token) for token in (91, 232, 383)] + [stream.finish()]
    assert "".join(pieces) == stream.text and pieces[0] == "X"
    assert "there" in stream.text or "there" in lm.tokenizer.decode([91, 232, 383])
    generator = torch.Generator().manual_seed(0)
    for _ in range(300):
        stream = TextStream(lm.tokenizer)
        for token in torch.randint(3, 512, (20,), generator=generator).tolist():
            stream.push(token)
        stream.finish()


@pytest.mark.parametrize("where", ["head", "last layer", "first layer"])
def test_an_interrupted_pass_is_run_again(where: str) -> None:
    lm = slmlab.load("tiny-draft")
    serving = Engine(lm, 64)
    prompts = prompts_of("tiny-draft", 3)
    ids = [serving.submit(prompt, max_new_tokens=8) for prompt in prompts]
    serving.step()
    module: nn.Module = {
        "head": lm.model.lm_head,
        "last layer": lm.model.layers[-1].mlp,
        "first layer": lm.model.layers[0].mlp,
    }[where]

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    for _ in range(3):
        handle = module.register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            serving.run()
        handle.remove()
        serving.step()
    done = serving.run()
    found = [done[i].tokens for i in ids]
    assert assert_as_alone("tiny-draft", prompts, found, 8) <= 1
    assert serving.pool.num_free == 64


@pytest.mark.parametrize("prefix_sharing", [True, False])
def test_nan_of_one_request_reaches_no_other(prefix_sharing: bool) -> None:
    lm = slmlab.load("tiny-draft")
    head = lm.model.lm_head
    head.weight = nn.Parameter(lm.model.embed_tokens.weight.detach().clone())
    with torch.no_grad():
        lm.model.embed_tokens.weight[POISON] = float("nan")
    serving = Engine(lm, num_blocks=8, prefix_sharing=prefix_sharing)
    first = serving.generate([[5, 6, 7]], max_new_tokens=8)
    poisoned = [serving.submit([POISON] * 40, max_new_tokens=4)]
    beside = serving.submit([5, 6, 7], max_new_tokens=8)
    poisoned.append(serving.submit([POISON] * 20, max_new_tokens=4))
    done = serving.run()
    assert [done[i].finish_reason for i in poisoned] == ["error", "error"]
    assert [done[beside].tokens] == first
    cancelled = serving.submit([POISON] * 60, max_new_tokens=4)
    serving.step()
    assert cancelled not in serving._requests or serving.cancel(cancelled)
    for prompt in ([5, 6, 7], [7] * 100):
        again = serving.generate([prompt], max_new_tokens=8)
        assert again == Engine(lm, num_blocks=8).generate([prompt], max_new_tokens=8)


def test_generate_says_that_logits_are_nan() -> None:
    lm = slmlab.load("tiny-draft")
    with torch.no_grad():
        lm.model.norm.weight.fill_(float("nan"))
    serving = Engine(lm)
    with pytest.raises(ValueError, match="the model's logits are NaN or infinite"):
        serving.generate(["def"])
    assert serving.idle and not serving._results


def test_texts_of_old_weights_are_not_recorded_again() -> None:
    pool = BlockPool(small_models.CONFIGS["qwen2"], num_blocks=8, block_size=2)
    decoder = small_models.model("qwen2")
    cache = PagedCache(pool)
    tokens = small_models.ids(decoder, 8)
    decoder(tokens[:, :5], cache)
    cache.record(tokens[0, :5].tolist())
    pool.drop_prefixes()
    decoder(tokens[:, 5:], cache)
    cache.record(tokens[0].tolist())
    cache.fork().record(tokens[0].tolist())
    assert len(pool.prefixes) == 0 and PagedCache(pool).take_prefix(tokens[0].tolist()) == 0
    cache.free()
    decoder(tokens, cache)
    cache.record(tokens[0].tolist())
    assert len(pool.prefixes) == 4


def test_misused_batches() -> None:
    decoder = small_models.model("qwen2")
    pool = BlockPool(decoder.config, num_blocks=16, block_size=2)
    tokens = small_models.ids(decoder, 5)
    cache, other = PagedCache(pool), PagedCache(pool)
    decoder(tokens, PagedBatch([cache], [5]))
    assert cache.length == 5
    batch = PagedBatch([cache], [1])
    # Without positions= it takes its own.
    logits = decoder(tokens[:, :1], batch)[0, -1]
    text = torch.cat([tokens, tokens[:, :1]], dim=1)
    small_models.assert_same_logits(logits, decoder(text)[0, -1])
    with pytest.raises(ValueError, match="this batch has run"):
        decoder(tokens[:, :1], batch)
    twins = [PagedBatch([cache], [1]), PagedBatch([cache], [1])]
    decoder(tokens[:, :1], twins[0])
    with pytest.raises(ValueError, match="its caches have changed"):
        decoder(tokens[:, :1], twins[1])
    batch = PagedBatch([cache], [1])
    cache.free()
    with pytest.raises(ValueError, match="its caches have changed"):
        decoder(tokens[:, :1], batch)
    with pytest.raises(ValueError, match="positions must have shape"):
        decoder(tokens[:, :3], PagedBatch([other], [2]))
    with pytest.raises(ValueError, match="feeds 3 tokens, the batch was made for 2"):
        decoder(tokens[:, :3], PagedBatch([other], [2]), positions=torch.arange(3))
    with pytest.raises(ValueError, match="make it with this model's config"):
        small_models.model("tiny")(tokens[:, :2], PagedBatch([other], [2]))
    with pytest.raises(TypeError, match="caches must be PagedCaches, not ContiguousCache"):
        PagedBatch([other, ContiguousCache(decoder.config, max_length=4)], [1, 1])  # type: ignore[list-item]
    assert other.length == 0


def test_sizes_that_no_machine_has() -> None:
    config = small_models.CONFIGS["qwen2"]
    for huge in (10**12, 10**30):
        with pytest.raises(ValueError, match=r"num_blocks asks for .* bytes of keys and values"):
            BlockPool(config, num_blocks=huge)
        with pytest.raises(ValueError, match=r"max_length asks for .* bytes of keys and values"):
            ContiguousCache(config, max_length=huge)


def test_a_cache_made_inside_inference_mode_can_be_used_outside() -> None:
    decoder = small_models.model("mistral-window")
    with torch.inference_mode():
        caches = [
            ContiguousCache(decoder.config, max_length=9),
            PagedCache(BlockPool(decoder.config, num_blocks=9)),
            slmlab.kv.SlidingWindowCache(decoder.config),
        ]
    tokens = small_models.ids(decoder, 9)
    for cache in caches:
        small_models.assert_same_logits(decoder(tokens, cache), decoder(tokens))


def test_arguments_are_named() -> None:
    serving = Engine(language_model("tiny-draft"), max_waiting=2)
    refused: list[tuple[Any, str]] = [
        (lambda: serving.generate("def"), "prompts must be a list of texts"),
        (lambda: serving.generate(None), "prompts must be a list of texts"),  # type: ignore[arg-type]
        (
            lambda: serving.generate([1, 2]),  # type: ignore[list-item]
            "prompt must be a str or a list of token ids, not int",
        ),
        (lambda: serving.submit(b"ab", max_new_tokens=2), "not bytes"),
        (lambda: serving.submit("a", max_new_tokens=2, stop=5), "stop must be a str or a list"),  # type: ignore[arg-type]
    ]
    for call, message in refused:
        with pytest.raises(TypeError, match=message):
            call()
    with pytest.raises(ValueError, match="is unknown or has ended"):
        serving.cancel([1])  # type: ignore[arg-type]
    # More prompts than may wait: it steps in between.
    assert len(serving.generate([[1]] * 5, max_new_tokens=2)) == 5


def test_blocks_held_from_outside_are_named() -> None:
    serving = Engine(language_model("tiny-draft"), num_blocks=2)
    stranger = PagedCache(serving.pool)
    stranger.reserve(17)
    serving.submit([1, 2], max_new_tokens=2)
    with pytest.raises(OutOfBlocks, match="2 of the pool's 2 blocks are held from outside"):
        serving.run()
    stranger.free()
    assert len(serving.run()) == 1


def test_another_name_than_ones_own_is_refused() -> None:
    app = create_app(Engine(language_model("tiny-draft")), "m", hosts={"localhost", "127.0.0.1"})

    async def status(host: str) -> int:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            answer = await client.get("/v1/models", headers={"Host": host})
            if answer.status_code == 421:
                assert "use 127.0.0.1" in answer.json()["error"]["message"]
            return answer.status_code

    for host, wanted in (
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("127.0.0.1:1", 200),
        ("evil.example", 421),
        ("localhost.evil.example:8000", 421),
        ("", 421),
    ):
        assert asyncio.run(status(host)) == wanted, host


def test_a_model_with_fewer_layers_than_the_transformers_cache() -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=99,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
    )
    model = LlamaForCausalLM(config).eval()
    more = replace(slmlab.models.ModelConfig.from_hf(config), num_hidden_layers=3, layer_windows=())
    wrapped = slmlab.kv.as_transformers_cache(ContiguousCache(more, max_length=30))
    ids = torch.tensor([[3, 4, 5]])
    with pytest.raises(ValueError, match="another number of layers"):
        model.generate(ids, max_new_tokens=4, do_sample=False, past_key_values=wrapped)
