from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from slmlab.data.corpus import Corpus, Document
from slmlab.data.grammar import documents
from slmlab.data.tokenizer import tokenizer_texts, train_tokenizer

SIZES = {"docs": 300_000, "code": 300_000, "grammar": 100_000}


@pytest.fixture(scope="module")
def corpus(standard_library: dict[str, Corpus]) -> Corpus:
    return standard_library["training"]


@pytest.fixture(scope="module")
def tokenizer(corpus: Corpus) -> PreTrainedTokenizerFast:
    return train_tokenizer(tokenizer_texts(corpus, sizes=SIZES))


def ids(tokenizer: PreTrainedTokenizerFast, text: str) -> list[int]:
    return tokenizer(text)["input_ids"]


@given(text=st.text())
def test_every_text_comes_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    assert tokenizer.decode(ids(tokenizer, text)) == text


@given(text=st.text(alphabet=" \n\t.,!?'s0123456789<|>é\u0301\u3042\U0001f600a", max_size=80))
def test_awkward_texts_come_back(tokenizer: PreTrainedTokenizerFast, text: str) -> None:
    """Blanks before punctuation, digits, marks and characters of two to four bytes."""
    assert tokenizer.decode(ids(tokenizer, text)) == text


def test_every_byte_is_a_token(tokenizer: PreTrainedTokenizerFast) -> None:
    alphabet = {tokenizer.convert_ids_to_tokens(index) for index in range(4, 260)}
    assert len(alphabet) == 256 and all(len(token) == 1 for token in alphabet)
    assert len(tokenizer) == tokenizer.vocab_size == 2048


def test_digits_stand_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    tokens = tokenizer.convert_ids_to_tokens(list(range(4, 2048)))
    assert not [t for t in tokens if len(t) > 1 and any(c.isdigit() for c in t)]
    assert len(ids(tokenizer, "37+48=85")) == 8


@pytest.mark.parametrize("indent", [4, 8])
def test_a_new_line_and_its_indent_are_one_token(
    tokenizer: PreTrainedTokenizerFast, indent: int
) -> None:
    """The last blank belongs to the next word: `\\n   ` and ` return`."""
    assert len(ids(tokenizer, "\n" + " " * (indent - 1))) == 1
    tokens = ids(tokenizer, "x:\n" + " " * indent + "return")
    assert tokenizer.decode(tokens[-2:]) == "\n" + " " * indent + "return"


def test_special_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    names = ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|system|>"]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3]
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == tokenizer.bos_token_id == 0
    assert ids(tokenizer, "".join(names)) == [0, 1, 2, 3]
    assert ids(tokenizer, "a")[0] > 3, "nothing is put in front of a text"
    assert tokenizer.decode([1, *ids(tokenizer, "hi"), 2, 0], skip_special_tokens=True) == "hi"


def test_the_chat_template_is_the_form_of_the_tool_calls(
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    drawn = next(documents(0, ("tool_calls",)))
    command = drawn.prompt.split("\n")[1]
    messages = [{"role": "user", "content": command}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert prompt == drawn.prompt
    messages += [{"role": "assistant", "content": drawn.answer}]
    assert tokenizer.apply_chat_template(messages, tokenize=False) == drawn.text + "<|endoftext|>"


def test_prompt_and_answer_split_where_tokens_split(tokenizer: PreTrainedTokenizerFast) -> None:
    """A model that continues the prompt meets the tokens that it was trained on."""
    draws = documents(0)
    for _ in range(400):
        drawn = next(draws)
        apart = ids(tokenizer, drawn.prompt) + ids(tokenizer, drawn.answer)
        assert apart == ids(tokenizer, drawn.text)


def test_saved_and_loaded_it_is_the_same(
    tokenizer: PreTrainedTokenizerFast, tmp_path: Path
) -> None:
    tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").stat().st_size < 150_000
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast)
    text = "<|user|>\nnaïve code:\n        return 42 , ok ?\n<|assistant|>\n"
    assert ids(loaded, text) == ids(tokenizer, text)
    assert loaded.decode(ids(loaded, text)) == text
    assert loaded.chat_template == tokenizer.chat_template
    assert loaded.all_special_ids == tokenizer.all_special_ids
    assert loaded.eos_token_id == loaded.pad_token_id == 0


PROGRAM = """
import hashlib
from slmlab.data.grammar import documents
from slmlab.data.tokenizer import train_bpe
draws = documents(0)
texts = [next(draws).text for _ in range(3000)]
print(hashlib.sha256(train_bpe(texts, 700).to_str().encode()).hexdigest())
"""


def test_two_processes_train_the_same_tokenizer() -> None:
    """Ties between merges are the danger: they must not follow the order of a hash table."""
    hashes = set()
    for seed, threads in (("1", "1"), ("2", "2")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=True,
        )
        hashes.add(ran.stdout)
    assert len(hashes) == 1


def test_the_sample_is_seeded_and_as_large_as_asked(corpus: Corpus) -> None:
    def digest(seed: int) -> str:
        texts = tokenizer_texts(corpus, seed, SIZES)
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()

    assert digest(0) == digest(0) != digest(1)
    known = set(corpus.texts("docs"))
    docs = [text for text in tokenizer_texts(corpus, 0, SIZES) if text in known]
    size = sum(len(text.encode()) for text in docs)
    assert SIZES["docs"] <= size < SIZES["docs"] + len(docs[-1].encode())


def test_bad_arguments_are_named() -> None:
    with pytest.raises(TypeError, match="texts is one string"):
        train_tokenizer("abc")
    with pytest.raises(ValueError, match="vocab_size is 100"):
        train_tokenizer(["abc"], 100)
    with pytest.raises(ValueError, match="texts holds no text"):
        train_tokenizer([])
    with pytest.raises(ValueError, match="sizes has keys"):
        tokenizer_texts(Corpus((Document("docs", "x", "y"),)), sizes={"docs": 1})
