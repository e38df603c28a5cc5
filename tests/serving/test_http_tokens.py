"""Bytes of tokens against the tokenizer's own decoding."""

from __future__ import annotations

import pytest

import slmlab
from slmlab.generation import LanguageModel
from slmlab.serving.answers import CompletionAnswer
from slmlab.serving.request import Completion, TokenLogprob
from slmlab.serving.token_bytes import TokenBytes, byte_level_alphabet
from tests.kv.small_models import STORIES260K
from tests.serving.http_server import model

TEXTS = ("Once upon a time", "  def f(x):\n\treturn x\n", "Größe 作 🙂 é", "7 + 5 = 12", "\u2581 x")


def language_model(name: str) -> LanguageModel:
    if name == "byte-level":
        return model()
    if not STORIES260K.is_dir():
        pytest.skip("stories260K is not part of the repository and not present")
    return slmlab.load(STORIES260K)


@pytest.mark.parametrize("name", ["byte-level", "byte fallback"])
def test_bytes_of_a_text_are_its_own(name: str) -> None:
    lm = language_model(name)
    tokens = TokenBytes(lm.tokenizer)
    for text in TEXTS:
        ids = [i for i in lm.encode(text) if not tokens.is_special(i)]
        joined = b"".join(tokens.bytes_of(i) for i in ids).decode()
        if name == "byte fallback":  # SentencePiece writes a space in front, and has one for U+2581
            joined, text = joined.removeprefix(" "), text.replace("\u2581", " ")
        assert joined == text


def test_every_single_token() -> None:
    tokenizer = model().tokenizer
    tokens = TokenBytes(tokenizer)
    for token in range(len(tokenizer)):
        assert tokens.text_of(token) == tokenizer.decode([token])
    assert tokens.bytes_of(10**6) == b""
    assert sorted(byte_level_alphabet().values()) == list(range(256))


def test_parts_of_a_character_keep_their_own_keys_and_offset() -> None:
    ids = model().encode("a作b")
    tokens = TokenBytes(model().tokenizer)
    assert len(ids) > 3  # the middle one takes several
    logprobs = [TokenLogprob(i, float("-inf"), ((i, -0.5),)) for i in ids]
    done = Completion(0, 1, 0, ids, "a作b", "length", None, None, 0.0, 0, logprobs)
    answer = CompletionAnswer("x", tokens).choice(0, done)["logprobs"]
    assert answer["text_offset"] == [0] + [1] * (len(ids) - 2) + [2]
    assert all(name.startswith("bytes:\\x") for name in answer["tokens"][1:-1])
    assert answer["tokens"][0] == "a" and answer["tokens"][-1] == "b"
    assert answer["token_logprobs"] == [-9999.0] * len(ids)
