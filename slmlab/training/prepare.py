"""From text to rows of token ids, once a run: later starts read them from the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from tqdm.auto import tqdm

from slmlab.data.corpus import STANDARD_LIBRARY, Corpus, Domain, read_corpus
from slmlab.data.grammar import documents
from slmlab.data.tokenizer import tokenizer_texts, train_tokenizer
from slmlab.training.batches import Rows, cut_rows, load_rows, pack_rows, save_rows
from slmlab.training.copies import COPIED_ROWS, copied_rows
from slmlab.training.recipe import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

END_OF_TEXT = 0
# Shares of documents, not of tokens: a story is three times as long as a tool call.
GRAMMAR_TASKS = ("tool_calls", "recall", "sums", "stories")
GRAMMAR_WEIGHTS = (0.35, 0.15, 0.25, 0.25)


def prepare_tokenizer(recipe: Recipe, folder: Path) -> PreTrainedTokenizerFast:
    """The tokenizer of a run: the teacher's for a draft, else trained once and kept in folder."""
    from transformers import PreTrainedTokenizerFast

    if (folder / "tokenizer.json").is_file():
        return PreTrainedTokenizerFast.from_pretrained(folder)
    texts = tokenizer_texts(_training_corpus(), seed=recipe.seed)
    tokenizer = train_tokenizer(texts, recipe.vocab_size)
    tokenizer.save_pretrained(folder)
    return tokenizer


def prepare_rows(
    recipe: Recipe, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> dict[str, Rows]:
    """Rows of the corpus and of grammar text, as far as the recipe asks for them.

    "stdlib-docs" are those of "docs" that come from the standard library; "copies" repeat
    passages of docs and code.
    """
    length = recipe.sequence_length
    corpus, stdlib = _training_corpus, _standard_library
    makers: dict[str, Callable[[], Rows]] = {
        "docs": lambda: cut_rows(_texts(tokenizer, corpus(), "docs"), length, END_OF_TEXT),
        "stdlib-docs": lambda: cut_rows(_texts(tokenizer, stdlib(), "docs"), length, END_OF_TEXT),
        "code": lambda: cut_rows(_texts(tokenizer, corpus(), "code"), length, END_OF_TEXT),
        "grammar": lambda: pack_rows(
            _grammar(recipe, tokenizer), length, END_OF_TEXT, recipe.grammar_tokens
        ),
    }

    def made(source: str) -> Rows:
        path = folder / f"{source}.npy"
        if not path.is_file():
            save_rows(path, makers[source]())
        return load_rows(path)

    makers["copies"] = lambda: copied_rows(
        {"docs": made("docs"), "code": made("code")}, COPIED_ROWS, recipe.seed
    )
    return {source: made(source) for source in recipe.sources if source in makers}


@cache
def _training_corpus() -> Corpus:
    """Read once: it takes some tens of seconds."""
    return read_corpus("training")


def _standard_library() -> Corpus:
    return read_corpus("training", (STANDARD_LIBRARY,))


def _texts(
    tokenizer: PreTrainedTokenizerFast, corpus: Corpus, domain: Domain
) -> Iterator[list[int]]:
    texts = corpus.texts(domain)
    for start in tqdm(range(0, len(texts), 64), desc=f"tokenising {domain}", unit="batch"):
        yield from _encode(tokenizer, texts[start : start + 64])


def _grammar(recipe: Recipe, tokenizer: PreTrainedTokenizerFast) -> Iterator[list[int]]:
    samples = documents(recipe.seed, GRAMMAR_TASKS, GRAMMAR_WEIGHTS)
    while True:
        yield from _encode(tokenizer, [next(samples).text for _ in range(256)])


def _encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    return [e.ids for e in tokenizer.backend_tokenizer.encode_batch(texts)]
