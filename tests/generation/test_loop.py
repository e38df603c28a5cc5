"""The plain loop and LanguageModel against transformers' generate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import slmlab
from slmlab.generation import LanguageModel, generate_tokens
from slmlab.models import Decoder, ModelConfig, save_decoder
from tests.models.layouts import random_model, saved

LAYOUTS_TO_RUN = ["llama", "llama3-rope", "mistral-window", "qwen2-mixed-window", "qwen3"]
TOP_2_GAP = 1e-3


@pytest.mark.parametrize("layout", LAYOUTS_TO_RUN)
def test_greedy_tokens_equal_transformers(layout: str, tmp_path: Path) -> None:
    theirs = saved(layout, tmp_path)
    ours = Decoder.from_pretrained(tmp_path)
    for seed in range(4):
        prompt = torch.randint(0, 97, (1, 5 + seed), generator=torch.Generator().manual_seed(seed))
        wanted = theirs.generate(
            prompt, max_new_tokens=30, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, prompt.shape[1] :].tolist()
        got = list(generate_tokens(ours, prompt[0].tolist(), max_new_tokens=30))
        assert len(got) == len(wanted) == 30
        if got != wanted:
            first = next(i for i, (a, b) in enumerate(zip(got, wanted, strict=True)) if a != b)
            so_far = torch.cat([prompt[0], torch.tensor(wanted[:first], dtype=torch.long)])
            best = ours(so_far[None])[0, -1].topk(2).values
            assert best[0] - best[1] < TOP_2_GAP, f"tokens differ at {first}, not a near tie"


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """One token a byte and no merges: every character beyond ASCII spans several tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|endoftext|>": 0, **{c: i + 1 for i, c in enumerate(alphabet)}}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", clean_up_tokenization_spaces=False
    )


@pytest.fixture(scope="module")
def lm(tmp_path_factory: pytest.TempPathFactory) -> LanguageModel:
    folder = tmp_path_factory.mktemp("lm")
    model = random_model("llama")
    model.resize_token_embeddings(257)
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return slmlab.load(folder)


def test_generate_is_repeatable_and_streams_the_same_text(lm: LanguageModel) -> None:
    options: dict[str, Any] = dict(max_new_tokens=40, temperature=1.2, top_k=50, seed=7)
    pieces: list[str] = []
    text = lm.generate("héllo", **options, stream=pieces.append)
    assert text and text == lm.generate("héllo", **options)
    assert "".join(pieces) == text
    assert len(pieces) > 5
    assert text != lm.generate("héllo", **{**options, "seed": 8})


def test_greedy_ignores_the_seed(lm: LanguageModel) -> None:
    assert lm.generate("abc", seed=1) == lm.generate("abc", seed=2) == lm.generate("abc")


def test_stop_id_ends_the_loop(lm: LanguageModel) -> None:
    prompt = lm.tokenizer.encode("abc")
    plain = list(generate_tokens(lm.model, prompt, max_new_tokens=20))
    stop = plain[6]
    cut = list(generate_tokens(lm.model, prompt, max_new_tokens=20, stop_ids={stop}))
    assert cut == plain[: plain.index(stop)]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        ({"prompt": ""}, ValueError, "the prompt is empty"),
        ({"prompt": 3}, TypeError, "prompt must be a str, not int"),
        ({"prompt": "a", "max_new_tokens": 0}, ValueError, "max_new_tokens=0 must be at least 1"),
        ({"prompt": "a", "max_new_tokens": 2.0}, TypeError, "max_new_tokens must be an int"),
        ({"prompt": "a", "max_new_tokens": 999}, ValueError, "ask for at most 255 new tokens"),
        ({"prompt": "a", "stream": "yes"}, TypeError, "stream must be a function"),
        ({"prompt": "a", "temperature": -1}, ValueError, "temperature=-1"),
        ({"prompt": "a", "temperature": 10**400}, ValueError, "temperature=1000"),
        ({"prompt": "a", "top_p": "0.9"}, TypeError, "top_p must be a number"),
        ({"prompt": "a", "seed": "7"}, TypeError, "seed must be an int or None, not '7'"),
        ({"prompt": "a", "seed": 7.0}, TypeError, "seed must be an int or None"),
        ({"prompt": "a", "seed": True}, TypeError, "seed must be an int or None"),
        ({"prompt": "a", "seed": 2**64}, ValueError, "seed must fit into 64 bits"),
        ({"prompt": "ab\ud800"}, ValueError, "half a surrogate pair at character 2"),
    ],
)
def test_bad_arguments(
    lm: LanguageModel, arguments: dict[str, Any], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        lm.generate(**arguments)


def test_bad_ids_are_refused_before_the_first_token(lm: LanguageModel) -> None:
    with pytest.raises(ValueError, match="token id 300, outside the vocabulary of 257"):
        generate_tokens(lm.model, [1, 300], max_new_tokens=4)
    with pytest.raises(TypeError, match=r"prompt ids must be ints, not 1\.5"):
        generate_tokens(lm.model, [1.5], max_new_tokens=4)  # type: ignore[list-item]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights_are_named(value: float, temperature: float) -> None:
    model = Decoder(ModelConfig("llama", 17, 12, 16, 2, 4, 2, 6, 64)).eval()
    model.lm_head.weight.data[5] = value
    tokens = generate_tokens(model, [1, 2, 3], max_new_tokens=4, temperature=temperature)
    with pytest.raises(ValueError, match="logits are NaN or infinite after 3 tokens"):
        next(tokens)


def test_generator_must_be_one(lm: LanguageModel) -> None:
    with pytest.raises(TypeError, match=r"generator must be a torch\.Generator"):
        generate_tokens(lm.model, [1], max_new_tokens=1, generator=3)  # type: ignore[arg-type]


def test_code_of_a_model_folder_is_never_run(
    lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm.tokenizer.save_pretrained(tmp_path)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nTokenizer = None\n")
    file = tmp_path / "tokenizer_config.json"
    values = {**json.loads(file.read_text()), "tokenizer_class": "TheirTokenizer"}
    values["auto_map"] = {"AutoTokenizer": [None, "code.TheirTokenizer"]}
    file.write_text(json.dumps(values))
    save_decoder(lm.model, tmp_path, torch.float32)

    asked: list[object] = []

    def answer(*question: object) -> str:
        asked.append(question)
        return "n"

    monkeypatch.setattr("builtins.input", answer)
    with pytest.raises(ValueError, match="trust_remote_code"):
        slmlab.load(tmp_path)
    assert not asked and not (tmp_path / "ran").exists()
