from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slmlab.data.corpus import (
    ORIGINS,
    STANDARD_LIBRARY,
    Corpus,
    Origin,
    is_held_out_source,
    read_corpus,
)
from slmlab.data.source_text import clean_source, docstrings, is_mostly_ascii, tidy

LONG = "Words that make this text long enough to be kept by the reader of the corpus. " * 4


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that breaks when somebody imports it."""
    root = tmp_path / "slmlab_fake_package"
    root.mkdir()
    (root / "__init__.py").write_text("raise RuntimeError('imported')\n")
    monkeypatch.syspath_prepend(tmp_path)
    return root


def read(package: Path, split: str = "training", **options: tuple) -> Corpus:
    return read_corpus(split, (Origin(package.name, **options),))


def sources(corpus: Corpus) -> set[str]:
    return {document.source for document in corpus.documents}


def in_training(package: Path, stem: str) -> str:
    """A file name that starts with `stem` and is not held out."""
    names = (f"{stem}{number}.py" for number in range(100))
    return next(name for name in names if not is_held_out_source(f"{package.name}/{name}"))


def test_a_file_gives_docs_and_code_and_is_not_imported(package: Path) -> None:
    name = in_training(package, "module")
    (package / name).write_text(f'"""{LONG}"""\n\nx = 1\n')
    corpus = read(package)
    assert [d.domain for d in corpus.documents] == ["docs", "code"]
    assert corpus.texts("docs") == [LONG.rstrip()]
    assert corpus.texts("code")[0].endswith("x = 1")
    assert corpus.missing == ()


def test_domains_and_folders_are_respected(package: Path) -> None:
    for folder in (package, package / "wanted", package / "other", package / "tests"):
        folder.mkdir(exist_ok=True)
        for number in range(3):
            (folder / f"m{number}.py").write_text(f'"""{folder.name} {number} {LONG}"""\n')
    found = read(package, domains=("docs",), folders=(".", "wanted"))
    assert found.texts("code") == []
    assert {source.split("/")[1] for source in sources(found)} <= {
        "wanted",
        "m0.py",
        "m1.py",
        "m2.py",
    }
    everything = sources(read(package)) | sources(read(package, "evaluation"))
    assert len(everything) == 9  # all but tests/


def test_a_held_out_file_gives_nothing_to_training(package: Path) -> None:
    for number in range(300):
        (package / f"m{number}.py").write_text(f'"""{number} {LONG}"""\nvalue = {number}\n')
    training, evaluation = read(package), read(package, "evaluation")
    assert not sources(training) & sources(evaluation)
    assert len(sources(training) | sources(evaluation)) == 300
    assert 0 < len(sources(evaluation)) < 20
    assert len(evaluation.documents) == 2 * len(sources(evaluation))
    assert all(is_held_out_source(source) for source in sources(evaluation))


def test_a_text_of_both_splits_belongs_to_evaluation(package: Path) -> None:
    for number in range(300):
        (package / f"m{number}.py").write_text(f'"""{LONG}"""\n')
    assert read(package).documents == ()
    assert len(read(package, "evaluation").documents) == 2


def test_a_missing_package_is_named(package: Path) -> None:
    (package / in_training(package, "m")).write_text(f'"""{LONG}"""\n')
    with pytest.warns(UserWarning, match=r"slmlab_is_not_there"):
        corpus = read_corpus("training", (Origin("slmlab_is_not_there"), Origin(package.name)))
    assert corpus.missing == ("slmlab_is_not_there",)
    assert len(corpus.documents) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"x = 1\n",  # short
        b'"""' + LONG.encode() + b"<|endoftext|>" + b'"""\n',
        ("x = '" + "é" * 400 + "'\n").encode(),
        b"x = '\xff\xfe'\n" + b"y = 1\n" * 100,  # not UTF-8
        b"y = 1\n" * 40_000,  # over 200 KB
    ],
)
def test_a_file_that_does_not_read_as_text_is_left_out(package: Path, content: bytes) -> None:
    (package / in_training(package, "m")).write_bytes(content)
    assert read(package).documents == ()


def test_source_that_does_not_parse_gives_no_docs(package: Path) -> None:
    (package / in_training(package, "m")).write_text("print 'old'\n" * 30)
    assert [d.domain for d in read(package).documents] == ["code"]
    assert docstrings("def f(:") == ""


def test_docstrings_come_in_order_cleaned_and_once() -> None:
    source = '''
        """Module.

            Indented."""
        class A:
            "Class."
            def f(self):
                """Method."""
                if self:
                    async def g():
                        """Nested."""
        def h():
            """Method."""
        def i():
            f"""Not a docstring."""
        """Nor this."""
    '''
    assert docstrings(textwrap.dedent(source)) == (
        "Module.\n\nIndented.\n\nClass.\n\nMethod.\n\nNested."
    )


def test_a_licence_is_dropped_wherever_its_comment_stands() -> None:
    source = (
        "#!/usr/bin/env python\n# Copyright somebody\n# All rights\n\n"
        '"""Doc: licensed."""\n# SPDX-License-Identifier: MIT\n\n'
        "# A comment that stays.\nx = 1  # license key\n"
        "    # licence in a block stays\n"
    )
    assert clean_source(source) == (
        '"""Doc: licensed."""\n\n# A comment that stays.\nx = 1  # license key\n'
        "    # licence in a block stays"
    )


def test_line_ends_blanks_and_tabs() -> None:
    assert clean_source("\n\nif x:  \r\n\ty = 1\t\r\n\r\nz\r") == "if x:\n\ty = 1\n\nz"


@given(st.text(alphabet="a# \t\r\nlicense", max_size=60))
def test_cleaning_twice_changes_nothing(text: str) -> None:
    once = clean_source(text)
    assert clean_source(once) == once
    assert tidy(once) == once


def test_two_percent_of_other_characters_are_allowed() -> None:
    assert is_mostly_ascii("a" * 98 + "é" * 2)
    assert not is_mostly_ascii("a" * 97 + "é" * 3)


def test_the_standard_library_is_read(standard_library: dict[str, Corpus]) -> None:
    training, evaluation = standard_library["training"], standard_library["evaluation"]
    for corpus in (training, evaluation):
        assert corpus.texts("docs") and corpus.texts("code")
        assert len({d.text for d in corpus.documents}) == len(corpus.documents)
    assert not sources(training) & sources(evaluation)
    assert sum(map(len, training.texts("docs"))) > 1_000_000
    assert sum(map(len, training.texts("code"))) > 4_000_000
    names = sources(training)
    assert {"stdlib/json/decoder.py", "topics/with"} <= names
    assert not any("/test/" in name or "site-packages" in name for name in names)
    assert not any("_sysconfigdata" in name for name in names)


def test_the_order_is_fixed(standard_library: dict[str, Corpus]) -> None:
    again = read_corpus("evaluation", (STANDARD_LIBRARY,))
    assert again == standard_library["evaluation"]
    files = [d.source for d in again.documents if d.source.startswith("stdlib/")]
    assert files == sorted(files)


def test_origins_are_distinct() -> None:
    assert len({origin.package for origin in ORIGINS}) == len(ORIGINS)


def test_an_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="split is 'test'"):
        read_corpus("test")
