"""A throw-away repository with one small topic, to build notebooks in."""

from pathlib import Path

import nbformat
from nbformat import NotebookNode

TOPIC = "07_fake"

LESSON = """\
# %% [markdown]
# # A number that looks wrong
# Build it in [the exercise](exercise:fake.double).

# %%
number = 6 * 7
print(f"the answer is {number}")

# %% tags=["nbval-ignore-output"]
import time

time.time_ns()
"""

EXERCISES = '''\
# %% [markdown]
# # Exercises

# %%
def exercise(identifier):
    return lambda function: function

# %% [markdown]
# ## Double
# Twice the argument.

# %%
@exercise("fake.double")
def double(x: int) -> int:
    """Twice x."""
    ### BEGIN SOLUTION
    secret = 2
    return secret * x
    ### END SOLUTION

# %%
double
'''


def make_tree(root: Path, lesson: str = LESSON, exercises: str | None = EXERCISES) -> Path:
    """Write the sources of one topic under `root`; returns `root`."""
    folder = root / "authoring" / TOPIC
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lesson.py").write_text(lesson, encoding="utf-8")
    if exercises is not None:
        (folder / "exercises.py").write_text(exercises, encoding="utf-8")
    return root


def source_path(root: Path, file: str = "lesson.py") -> Path:
    """One of the topic's sources."""
    return root / "authoring" / TOPIC / file


def built(root: Path, folder: str = "notebooks") -> NotebookNode:
    """The topic's notebook in `folder`."""
    return nbformat.read(root / folder / f"{TOPIC}.ipynb", as_version=4)


def snapshot(root: Path) -> dict[str, bytes]:
    """Relative path -> bytes of every notebook under `root`."""
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.ipynb")}
