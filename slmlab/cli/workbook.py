"""Where the lessons come from, and which folder may hold a learner's copy of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FOLDERS = ("notebooks", "exercises")
FIRST_LESSON = "notebooks/00_start_here.ipynb"
MANIFEST_NAME = ".slmlab-manifest.json"

# Folders of a checkout that git tracks or that tools own: no copy goes inside one of them.
_TAKEN = (
    *FOLDERS,
    "solutions",
    "authoring",
    "slmlab",
    "tests",
    "benchmarks",
    "results",
    ".git",
    ".venv",
    ".ci",
    ".github",
)


@dataclass(frozen=True)
class Workbook:
    """The delivered lessons: `root` holds notebooks/ and exercises/.

    `checkout` tells a clone of the repository from an installed package.
    """

    root: Path
    checkout: bool

    def files(self) -> dict[str, Path]:
        """Relative posix path -> file, sorted; hidden files and caches are left out."""
        found: dict[str, Path] = {}
        for folder in FOLDERS:
            for path in sorted((self.root / folder).rglob("*")):
                inner = path.relative_to(self.root)
                hidden = any(part.startswith((".", "__pycache__")) for part in inner.parts)
                if path.is_file() and not hidden:
                    found[inner.as_posix()] = path
        return found


def find_workbook(package: Path | None = None) -> Workbook:
    """The lessons that belong to this installation.

    `package` is the folder of the slmlab package (default: this one). A checkout has notebooks/
    beside the package; a wheel carries them in slmlab/_workbook/. Raises ValueError where neither
    is there.
    """
    package = package or Path(__file__).resolve().parent.parent
    if (package.parent / "notebooks").is_dir():
        return Workbook(package.parent, checkout=True)
    if (package / "_workbook" / "notebooks").is_dir():
        return Workbook(package / "_workbook", checkout=False)
    raise ValueError(
        f"the lessons are missing: neither {package.parent / 'notebooks'} nor "
        f"{package / '_workbook'} exists. Reinstall slmlab, or clone its repository again."
    )


def default_work_folder(workbook: Workbook, here: Path) -> Path:
    """The folder used where the learner names none; `here` is the current directory.

    Inside a checkout it is the checkout's work/, from any of its subfolders. Elsewhere it is
    slmlab-work/ under `here`, or `here` itself where that is already a work folder.
    """
    here = here.resolve()
    if workbook.checkout and here.is_relative_to(workbook.root.resolve()):
        return workbook.root.resolve() / "work"
    if (here / MANIFEST_NAME).exists():
        return here
    return here / "slmlab-work"


def _same(one: Path, other: Path) -> bool:
    # samefile sees through links and through file systems that ignore case
    return one == other or (one.exists() and other.exists() and one.samefile(other))


def check_work_folder(workbook: Workbook, work: Path) -> None:
    """Raise ValueError where `work` would put a learner's files among the delivered ones."""
    if workbook.checkout:
        taken = [workbook.root / name for name in _TAKEN]
    else:
        taken = [workbook.root.parent]
    mend = "choose another folder, for example: slmlab lab ~/slmlab-work"
    if workbook.checkout and _same(work.resolve(), workbook.root.resolve()):
        raise ValueError(f"DIR {work} is the repository itself: {mend}")
    for target in (work, *(work / folder for folder in FOLDERS)):
        resolved = target.resolve()
        for ancestor in (resolved, *resolved.parents):
            for folder in taken:
                if _same(ancestor, folder.resolve()):
                    raise ValueError(f"DIR {work} lies inside {folder}, which slmlab owns: {mend}")
        for path in (target, *target.parents):
            if path.exists() and not path.is_dir():
                raise ValueError(
                    f"DIR {work} cannot be made: {path} is a file, not a folder. {mend}"
                )
