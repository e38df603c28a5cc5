"""Run every benchmark at full size and keep what it measured in results/ (`make prove`).

A benchmark is a file in benchmarks/ that prints a table and, as its last line, one JSON object. The
object is stored with the commit, the seed and the machine, and lessons quote it by loading it.

    python -m authoring.prove                all of them
    python -m authoring.prove decoder_race   these
"""

import argparse
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from authoring.files import write_if_changed

ROOT = Path(__file__).resolve().parent.parent
SEED = 0


def find_benchmarks(root: Path = ROOT) -> dict[str, Path]:
    """Name -> file of every benchmark; a name that starts with an underscore is a helper."""
    files = sorted((root / "benchmarks").glob("[!_]*.py"))
    return {path.stem: path for path in files}


def prove(path: Path, root: Path = ROOT) -> Path:
    """Run one benchmark, showing what it prints; returns the file written in results/.

    The benchmark runs in the repository with SLMLAB_SEED set. Raises ValueError where it fails or
    where its last line is not a JSON object; an older result then stays as it was.
    """
    environment = dict(
        os.environ, SLMLAB_SEED=str(SEED), PYTHONUNBUFFERED="1", PYTHONPATH=str(root)
    )
    lines: list[str] = []
    with subprocess.Popen(
        [sys.executable, str(path)], cwd=root, env=environment, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
    if process.returncode != 0:
        raise ValueError(f"benchmarks/{path.name} ended with status {process.returncode}")
    measured = _last_object(path, lines)
    record = {**_provenance(root), "benchmark": path.stem, "measured": measured}
    target = root / "results" / f"{path.stem}.json"
    write_if_changed(target, json.dumps(record, indent=1, sort_keys=True) + "\n")
    return target


def _last_object(path: Path, lines: list[str]) -> dict[str, Any]:
    last = lines[-1].strip() if lines else ""
    try:
        measured = json.loads(last)
    except json.JSONDecodeError:
        measured = None
    if not isinstance(measured, dict):
        raise ValueError(
            f"benchmarks/{path.name}: the last line printed must be one JSON object, "
            f"it is '{last[:80]}'"
        )
    return measured


def _provenance(root: Path) -> dict[str, Any]:
    return {
        "commit": _git(root, "rev-parse", "HEAD"),
        "uncommitted_changes": bool(_git(root, "status", "--porcelain")),
        "seed": SEED,
        "machine": {
            "cpu": _cpu_name(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "architecture": platform.machine(),
            "python": platform.python_version(),
            "torch": _version("torch"),
        },
    }


def _git(root: Path, *arguments: str) -> str | None:
    """The output of a git command; None outside a repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main(arguments: Sequence[str] | None = None, root: Path = ROOT) -> int:
    """The command line; runs all benchmarks even where one fails, then returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m authoring.prove", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("names", nargs="*", help="benchmarks to run (default: all)")
    names = parser.parse_args(arguments).names
    benchmarks = find_benchmarks(root)
    for name in names:
        if name not in benchmarks:
            parser.error(f"no benchmarks/{name}.py")
    failures = 0
    for name in names or benchmarks:
        print(f"== {name}", flush=True)
        try:
            print(f"-> {prove(benchmarks[name], root).relative_to(root).as_posix()}", flush=True)
        except ValueError as error:
            failures += 1
            print(error, file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
