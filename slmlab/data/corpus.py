"""Text that every user already has: the documentation and source that came with Python.

Domain "docs": the language reference topics of `pydoc_data.topics` and the docstrings of each
module. Domain "code": source files. Both come from the standard library and from a fixed list of
packages that slmlab depends on. Nothing is imported (docstrings are read with `ast`), nothing is
downloaded, and no text is copied into this repository.

The held-out split is by file: a held-out file gives neither its docstrings nor its source to
training. The text depends on the versions installed, so results on it are orderings, not constants.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import os
import sysconfig
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from slmlab.data.source_text import clean_source, docstrings, is_mostly_ascii, tidy
from slmlab.data.special_tokens import has_special_token

Domain = Literal["docs", "code"]

SPLITS = ("training", "evaluation")
MAXIMUM_FILE_BYTES = 200_000
MINIMUM_CHARACTERS = 200
HELD_OUT_ONE_IN = 50
TOPICS = Path("pydoc_data", "topics.py")
EXCLUDED_FOLDERS = frozenset(
    {
        *("test", "tests", "testing", "idlelib", "turtledemo", "lib2to3", "__pycache__"),
        *("encodings", "pydoc_data", "site-packages", "dist-packages", "locale", "msilib"),
        *("_vendor", "vendored", "third_party", "generated", "_generated", "_unicode_data"),
    }
)
# Tables and generated modules: names, numbers and build settings, nothing that reads as code.
EXCLUDED_FILES = frozenset(
    {
        *("entities.py", "mimetypes.py", "keyword.py", "token.py", "stringprep.py"),
        *("_cell_widths.py", "_emoji_codes.py", "_palettes.py", "__config__.py"),
    }
)
# Build settings of this Python: they hold the paths of the machine it was built on.
BUILD_FILES = "_sysconfigdata"
BUILD_FOLDERS = "config-"


@dataclass(frozen=True)
class Document:
    """One text: `source` says where it is from, such as "numpy/linalg/_linalg.py"."""

    domain: Domain
    source: str
    text: str


@dataclass(frozen=True)
class Origin:
    """An import package to read, for which domains, and in which of its folders.

    `folders` are relative to the package, "." stands for the files at its top. Empty means all.
    """

    package: str
    domains: tuple[Domain, ...] = ("docs", "code")
    folders: tuple[str, ...] = ()


STANDARD_LIBRARY = Origin("stdlib")
DOCS: tuple[Domain, ...] = ("docs",)
# The large packages give docstrings only: they would drown the rest, and their source repeats them.
ORIGINS = (
    STANDARD_LIBRARY,
    Origin("numpy", DOCS),
    Origin("torch", DOCS),
    Origin("matplotlib", DOCS),
    Origin("networkx", DOCS),
    Origin(
        "transformers",
        DOCS,
        (".", "generation", "utils", "quantizers", "integrations", "data", "pipelines"),
    ),
    Origin("accelerate"),
    Origin("huggingface_hub"),
    Origin("IPython"),
    Origin("jupyter_server"),
    Origin("jupyter_client"),
    Origin("ipywidgets"),
    Origin("nbformat"),
    Origin("nbclient"),
    Origin("traitlets"),
    Origin("rich"),
    Origin("typer"),
    Origin("tqdm"),
    Origin("_pytest"),
    Origin("packaging"),
    Origin("jinja2"),
    Origin("tornado"),
    Origin("safetensors"),
    Origin("tokenizers"),
)


@dataclass(frozen=True)
class Corpus:
    """Documents in a fixed order, and the packages that were asked for and are not installed."""

    documents: tuple[Document, ...]
    missing: tuple[str, ...] = field(default=())

    def texts(self, domain: Domain) -> list[str]:
        """The texts of one domain, in order."""
        return [document.text for document in self.documents if document.domain == domain]


def read_corpus(split: str = "training", origins: tuple[Origin, ...] = ORIGINS) -> Corpus:
    """Read one split ("training" or "evaluation", the held-out files), without repeated texts.

    A package that is not installed is named in `Corpus.missing` and in a UserWarning. A text that
    stands in both splits belongs to evaluation. Raises ValueError for an unknown split.
    """
    if split not in SPLITS:
        raise ValueError(f"split is {split!r}: choose one of {', '.join(SPLITS)}.")
    roots = [(origin, _root(origin.package)) for origin in origins]
    missing = [origin.package for origin, root in roots if root is None]
    if any(o == STANDARD_LIBRARY and root and not (root / TOPICS).is_file() for o, root in roots):
        missing.append("pydoc_data.topics")
    if missing:
        warnings.warn(
            f"Not installed, so not in the corpus: {', '.join(missing)}.", UserWarning, stacklevel=2
        )
    seen: set[bytes] = set()
    documents: list[Document] = []
    for part in ("evaluation", "training"):
        if part == "training" and split == "evaluation":
            break
        documents = [
            document
            for origin, root in roots
            if root is not None
            for document in _read(origin, root, held_out=part == "evaluation")
            if _is_new(document.text, seen)
        ]
    return Corpus(tuple(documents), tuple(missing))


def _is_new(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.sha256(text.encode()).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def is_held_out_source(source: str) -> bool:
    """Whether the file or topic of this name belongs to the held-out 2%."""
    digest = hashlib.sha256(f"corpus/{source}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % HELD_OUT_ONE_IN == 0


def _root(package: str) -> Path | None:
    if package == STANDARD_LIBRARY.package:
        root = Path(sysconfig.get_paths()["stdlib"])
        return root if root.is_dir() else None
    spec = find_spec(package)  # a top-level name: found without importing it
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(next(iter(spec.submodule_search_locations)))


def _read(origin: Origin, root: Path, held_out: bool) -> Iterator[Document]:
    if origin == STANDARD_LIBRARY and (root / TOPICS).is_file():
        for topic in _topics(root / TOPICS):
            if is_held_out_source(topic.source) == held_out:
                yield topic
    for path in _files(root, origin.folders):
        source = f"{origin.package}/{path.relative_to(root).as_posix()}"
        raw = _text(path) if is_held_out_source(source) == held_out else None
        if raw is None:
            continue
        for domain in origin.domains:
            text = docstrings(raw) if domain == "docs" else clean_source(raw)
            if _is_wanted(text):
                yield Document(domain, source, text)


def _is_wanted(text: str) -> bool:
    # A text that spells a special token would end, or start a chat, in its middle.
    long_enough = len(text) >= MINIMUM_CHARACTERS
    return long_enough and is_mostly_ascii(text) and not has_special_token(text)


def _topics(path: Path) -> Iterator[Document]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    table = next(node for node in ast.walk(tree) if isinstance(node, ast.Dict))
    topics: dict[str, str] = ast.literal_eval(table)
    for name in sorted(topics):
        text = tidy(inspect.cleandoc(topics[name]))
        if _is_wanted(text):
            yield Document("docs", f"topics/{name}", text)


def _files(root: Path, folders: tuple[str, ...]) -> list[Path]:
    found = []
    for folder, below, names in os.walk(root):
        at_top = Path(folder) == root
        # Pruned in place: os.walk then never enters a folder that gives nothing.
        below[:] = [name for name in below if _is_read(name, folders if at_top else ())]
        if at_top and folders and "." not in folders:
            continue
        found += [Path(folder, name) for name in names if name.endswith(".py")]
    wanted = [
        path
        for path in found
        if path.name not in EXCLUDED_FILES
        and not path.name.startswith(BUILD_FILES)
        and path.is_file()
        and path.stat().st_size <= MAXIMUM_FILE_BYTES
    ]
    return sorted(wanted, key=lambda path: path.relative_to(root).as_posix())


def _is_read(folder: str, only: tuple[str, ...]) -> bool:
    if folder in EXCLUDED_FOLDERS or folder.startswith(BUILD_FOLDERS):
        return False
    return not only or folder in only


def _text(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None
