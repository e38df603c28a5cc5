"""A new pack, copied from the template in this folder."""

from __future__ import annotations

import keyword
import re
from importlib.util import find_spec
from pathlib import Path

from slmlab.checking import registry

TEMPLATE = Path(__file__).resolve().parent / "template"


def new_pack(folder: str | Path) -> list[Path]:
    """Write a pack with two exercises and a handout into `folder`, which must be new or empty.

    The last part of the folder's name becomes the name of the pack, of its package and its topic.
    Returns the files. Raises ValueError where the folder is in use or its name cannot be a package.
    """
    root = Path(folder).expanduser()
    package = re.sub(r"[^a-z0-9]+", "_", root.resolve().name.lower()).strip("_")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", package) or keyword.iskeyword(package):
        raise ValueError(
            f"DIR {root}: {root.name!r} gives no name for a package; choose one like my-exercises."
        )
    if package in registry.topics() or find_spec(package) is not None:
        raise ValueError(
            f"DIR {root}: a package or topic named {package!r} is installed already; choose "
            "another name."
        )
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"DIR {root} is there already and is not empty: choose another folder.")
    written = []
    for source in sorted(TEMPLATE.rglob("*")):
        if not source.is_file() or "__pycache__" in source.parts:
            continue
        target = root / str(source.relative_to(TEMPLATE)).replace("example_pack", package)
        text = source.read_text(encoding="utf-8").replace("example_pack", package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text.replace("example-pack", package.replace("_", "-")), encoding="utf-8")
        written.append(target)
    return written
