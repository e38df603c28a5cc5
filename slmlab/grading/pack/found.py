"""A pack of exercises, found by the name it is installed under or by its folder."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    EntryPoint,
    PackageNotFoundError,
    distribution,
    entry_points,
)
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlparse

from slmlab.checking import registry
from slmlab.checking.spec import Exercise


@dataclass(frozen=True)
class Pack:
    """What a pack offers, and where its handouts are.

    topics     topic -> exercises, as registered while the pack is open
    problems   sentences about topics that could not be loaded
    """

    name: str
    version: str
    topics: dict[str, tuple[Exercise, ...]]
    handouts: tuple[Path, ...]
    problems: tuple[str, ...] = ()

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        """All of them, topic by topic."""
        return tuple(item for items in self.topics.values() for item in items)


@contextmanager
def open_pack(name_or_path: str | Path) -> Iterator[Pack]:
    """The pack, its topics registered for the length of the block.

    name_or_path: a folder with a pyproject.toml, which need not be installed; the name of an
    installed distribution; or one of its topics. The pack's own code is imported: it is yours.

    Raises ValueError where there is no such pack.
    """
    path = Path(name_or_path).expanduser()
    with ExitStack() as stack:
        if (
            (path / "pyproject.toml").exists()
            or "/" in str(name_or_path)
            or "\\" in str(name_or_path)
        ):
            yield _from_folder(path, stack)
        else:
            yield _installed(str(name_or_path))


def offering(topic: str) -> Distribution | None:
    """The installed distribution that offers `topic`; None where there is none."""
    for point in entry_points(group=registry.GROUP):
        if point.name == topic:
            return point.dist
    return None


def handouts_of(found: Distribution) -> tuple[Path, ...]:
    """Handouts of an installed pack: in its package, or in the folder of an editable install."""
    points = [point for point in found.entry_points if point.group == registry.GROUP]
    places = [folder for point in points for folder in _package_folders(point.value)]
    text = found.read_text("direct_url.json")
    if text is not None:
        origin = json.loads(text)
        if origin.get("dir_info", {}).get("editable") and origin.get("url", "").startswith("file:"):
            places.append(Path(unquote(urlparse(origin["url"]).path)))
    return _handouts(places)


def _installed(name: str) -> Pack:
    found: Distribution | None
    try:
        found = distribution(name)
    except (PackageNotFoundError, ValueError):
        found = offering(name)
    points = (
        []
        if found is None
        else [point for point in found.entry_points if point.group == registry.GROUP]
    )
    if found is None or not points:
        raise ValueError(
            f"There is no pack {name!r}: give a folder with a pyproject.toml, or the name of an "
            f'installed package with an entry point in "{registry.GROUP}". Topics that are '
            f"installed: {', '.join(registry.topics())}."
        )
    topics: dict[str, tuple[Exercise, ...]] = {}
    problems = []
    order = registry.topics()
    for point in sorted(points, key=lambda point: order.index(point.name)):
        try:
            topics[point.name] = registry.exercises(point.name)
        except (ValueError, TypeError) as error:
            problems.append(str(error))
    return Pack(found.name, found.version, topics, handouts_of(found), tuple(problems))


def _from_folder(root: Path, stack: ExitStack) -> Pack:
    file = root / "pyproject.toml"
    try:
        project: Any = tomllib.loads(file.read_text(encoding="utf-8"))["project"]
        name, version = project["name"], str(project.get("version", ""))
        points = dict(project["entry-points"][registry.GROUP])
    except OSError as error:
        raise ValueError(
            f"{root} is no pack ({file.name}: {error.strerror}): "
            "`slmlab check-pack --new DIR` makes one."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} names no exercises ({type(error).__name__}: {error}): it needs [project] with "
            f'a name, and [project.entry-points."{registry.GROUP}"] with a line '
            'topic = "package:EXERCISES".'
        ) from None
    root = root.resolve()
    stack.enter_context(_importable((root, root / "src")))
    topics: dict[str, tuple[Exercise, ...]] = {}
    problems = []
    places = [root]
    for topic, value in points.items():
        owner = offering(topic)
        if owner is not None and owner.name != name:
            problems.append(f"Topic {topic!r} is offered by {owner.name} already: rename yours.")
        try:
            items = EntryPoint(topic, value, registry.GROUP).load()
            if not isinstance(items, tuple):
                raise TypeError("it must be a tuple of Exercise")
            topics[topic] = stack.enter_context(registry.registered(topic, items))
            places += _package_folders(value)
        except Exception as error:  # the author's module may raise anything
            problems.append(f"Topic {topic!r} ({value}): {type(error).__name__}: {error}")
    return Pack(name, version, topics, _handouts(places), tuple(problems))


@contextmanager
def _importable(folders: tuple[Path, ...]) -> Iterator[None]:
    """`folders` first on sys.path; afterwards what was imported from there is forgotten again."""
    path = list(sys.path)
    modules = dict(sys.modules)
    sys.path[:0] = [str(folder) for folder in folders if folder.is_dir()]
    try:
        yield
    finally:
        sys.path[:] = path
        for name, module in list(sys.modules.items()):
            file = getattr(module, "__file__", None)
            own = file is not None and any(Path(file).is_relative_to(one) for one in folders)
            if own and name not in modules:
                del sys.modules[name]


def _package_folders(value: str) -> list[Path]:
    spec = find_spec(value.split(":")[0].split(".")[0])
    return [Path(place) for place in (spec.submodule_search_locations or [])] if spec else []


def _handouts(folders: list[Path]) -> tuple[Path, ...]:
    """handout*.py and handout*.ipynb in each folder, and every notebook of handouts/ in it."""
    found: dict[Path, None] = {}
    for folder in dict.fromkeys(folders):
        for pattern in ("handout*.ipynb", "handout*.py", "handouts/*.ipynb", "handouts/*.py"):
            found |= dict.fromkeys(sorted(folder.glob(pattern)))
    return tuple(path for path in found if path.name != "__init__.py" and path.is_file())
