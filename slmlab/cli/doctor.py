"""`slmlab doctor`: whether this machine can run the workbook, and the mend where it cannot."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from slmlab.cli.findings import Finding, Report, State
from slmlab.cli.machine import available_memory_bytes, free_disk_bytes, usable_cores

GB = 1e9
# Loading tiny and generating stays under 0.6 GB resident; JupyterLab itself needs about 0.3.
_MEMORY_NEEDED, _MEMORY_COMFORTABLE = 0.7 * GB, 1.5 * GB
_DISK_NEEDED, _DISK_COMFORTABLE = 0.1 * GB, 1.0 * GB
_OLDEST_PYTHON = (3, 11)


def _level(value: float, needed: float, comfortable: float) -> State:
    if value < needed:
        return "problem"
    return "ok" if value >= comfortable else "warning"


def check_python(version: tuple[int, int, int] = sys.version_info[:3]) -> Finding:
    """The running Python against the oldest that slmlab supports."""
    text = ".".join(map(str, version))
    if version[:2] < _OLDEST_PYTHON:
        return Finding("Python", "problem", text, "Make the environment with Python 3.11 or newer.")
    return Finding("Python", "ok", text)


def check_packages(requirements: Iterable[str] | None = None) -> list[Finding]:
    """Installed versions against the ranges that slmlab declares.

    `requirements` are PEP 508 lines; by default those in slmlab's own metadata, extras left out.
    """
    from packaging.requirements import Requirement

    if requirements is None:
        try:
            requirements = importlib.metadata.requires("slmlab") or ()
        except importlib.metadata.PackageNotFoundError:
            mend = "Run `pip install -e .` in the repository, or `make lab`."
            return [Finding("slmlab", "warning", "runs from a folder, not installed", mend)]
    findings = []
    for requirement in map(Requirement, requirements):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name, wanted = requirement.name, str(requirement.specifier) or "any version"
        mend = f'Run `{sys.executable} -m pip install "{name}{requirement.specifier}"`.'
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            findings.append(Finding(name, "problem", f"missing (wanted {wanted})", mend))
            continue
        if requirement.specifier.contains(version, prereleases=True):
            findings.append(Finding(name, "ok", version))
        else:
            found = f"{version}, outside the tested range {wanted}"
            findings.append(Finding(name, "warning", found, mend))
    return findings


def check_memory(available: int | None = None) -> Finding:
    """Bytes of memory available now (`available`, default: measured)."""
    size = available_memory_bytes() if available is None else available
    state = _level(size, _MEMORY_NEEDED, _MEMORY_COMFORTABLE)
    mend = "" if state == "ok" else "Close other programs and other notebooks' kernels."
    return Finding("memory", state, f"{size / GB:.1f} GB available", mend)


def check_threads() -> Finding:
    """Cores this process may use, and the threads that torch takes."""
    import torch

    cores, threads = usable_cores(), torch.get_num_threads()
    setting = os.environ.get("OMP_NUM_THREADS")
    said = f"OMP_NUM_THREADS={setting}" if setting else "OMP_NUM_THREADS not set"
    found = f"{cores:g} core(s), torch uses {threads} thread(s), {said}"
    mend = ""
    if threads > 1 and (cores <= 2 or threads > cores):
        mend = (
            "On a small or shared machine a second thread can cost more than it brings: "
            "set OMP_NUM_THREADS=1 before Python starts (`slmlab lab` does)."
        )
    return Finding("threads", "warning" if mend else "ok", found, mend)


def check_disk(folder: Path | None = None) -> Finding:
    """Free bytes where `folder` lies (default: the current directory)."""
    place = folder or Path.cwd()
    free = free_disk_bytes(place)
    state = _level(free, _DISK_NEEDED, _DISK_COMFORTABLE)
    mend = "" if state == "ok" else "Free some space: checkpoints of the lessons need it."
    return Finding("disk", state, f"{free / GB:.1f} GB free in {place}", mend)


def check_model(name: str = "tiny") -> Finding:
    """Load the model `name` and generate 8 tokens, greedily."""
    from slmlab.generation import load

    begin = time.perf_counter()
    try:
        model = load(name)
        loaded = time.perf_counter()
        pieces: list[str] = []
        model.generate("def main(", max_new_tokens=8, stream=pieces.append)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        mend = "Reinstall slmlab, or run `git checkout slmlab/models/embedded` in the repository."
        return Finding("model", "problem", f"{name}: {reason}", mend)
    took = time.perf_counter() - loaded
    found = f"{name} loads in {loaded - begin:.1f} s with imports, writes 8 tokens in {took:.2f} s"
    return Finding("model", "ok", found)


def check_widgets() -> Finding:
    """Whether ipywidgets imports and builds a widget, and which version it is."""
    try:
        import ipywidgets

        ipywidgets.IntSlider(value=4, min=0, max=8)
    except Exception as error:
        mend = f"Run `{sys.executable} -m pip install ipywidgets`, then restart the kernel."
        return Finding("widgets", "problem", f"ipywidgets does not work: {error}", mend)
    version = ipywidgets.__version__
    if int(version.split(".")[0]) < 8:
        return Finding("widgets", "ok", f"ipywidgets {version} (the 7 series, as Colab ships it)")
    return Finding("widgets", "ok", f"ipywidgets {version}")


def check_jupyterlab() -> Finding:
    """Whether this Python finds JupyterLab; Colab brings its own front end."""
    if "COLAB_RELEASE_TAG" in os.environ:
        return Finding("JupyterLab", "ok", "not needed: this is Colab")
    if importlib.util.find_spec("jupyterlab") is None:
        mend = f"Run `{sys.executable} -m pip install jupyterlab`."
        return Finding("JupyterLab", "problem", f"not found by {sys.executable}", mend)
    return Finding("JupyterLab", "ok", importlib.metadata.version("jupyterlab"))


def check_progress_file(path: Path | None = None) -> Finding:
    """Whether the progress file `path` (default: the learner's) can be written.

    A temporary file is made where it lies, and removed; the progress itself is not touched. A
    file that is no JSON is a warning: it is kept aside on its next use.
    """
    mend = "Set SLMLAB_PROGRESS to a file in a folder where you may write."
    if path is None:
        from slmlab.checking.progress_file import ProgressError, progress_path

        try:
            path = progress_path()
        except ProgressError as error:
            return Finding("progress file", "problem", str(error), mend)
    if str(path) == os.devnull:
        return Finding("progress file", "warning", f"{path} keeps nothing", mend)
    if path.is_dir():
        return Finding("progress file", "problem", f"{path} is a folder", mend)
    folder = path.parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".slmlab-"):
            pass
    except OSError as error:
        return Finding("progress file", "problem", f"{path}: {error.strerror}", mend)
    try:
        if path.exists() and path.stat().st_size:
            json.loads(path.read_bytes())
    except (OSError, ValueError):
        mend = "It will be kept aside; if you have an export: `slmlab progress --import FILE`."
        return Finding("progress file", "warning", f"{path} is damaged", mend)
    return Finding("progress file", "ok", f"{path} can be written")


def check_cpu() -> Finding:
    """The vector instructions that torch's kernels use here, and whether bf16 is native."""
    import torch

    capability = torch.backends.cpu.get_cpu_capability()
    bf16 = _has_native_bf16()
    said = {True: "native bf16", False: "no native bf16", None: "bf16 support unknown"}[bf16]
    mend = ""
    if capability in ("DEFAULT", "NO AVX"):
        mend = "Kernels run without AVX2: every lesson works, several times slower."
    return Finding("CPU", "warning" if mend else "ok", f"{capability}, {said}", mend)


def _has_native_bf16() -> bool | None:
    import torch

    try:
        capabilities = torch.cpu.get_capabilities()
        names = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16")
        return any(bool(capabilities.get(name)) for name in names)
    except Exception:
        pass
    try:
        flags = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        return None
    return any(flag in flags for flag in ("avx512_bf16", "amx_bf16", "bf16"))


def _guarded(name: str, check: Callable[[], Finding | list[Finding]]) -> list[Finding]:
    # The doctor reports whatever is broken; it must not break on it.
    try:
        found = check()
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        mend = "Mend this first; `make lab` builds a fresh environment."
        return [Finding(name, "problem", reason, mend)]
    return found if isinstance(found, list) else [found]


def doctor() -> Report:
    """Check this machine, in about the time that loading torch takes.

    Returns a list of findings, one a line, that renders as a table in a notebook. A finding says
    what is and, where it is not ok, what to do. Never raises.
    """
    checks: tuple[tuple[str, Callable[[], Finding | list[Finding]]], ...] = (
        ("Python", check_python),
        ("packages", check_packages),
        ("memory", check_memory),
        ("disk", check_disk),
        ("threads", check_threads),
        ("CPU", check_cpu),
        ("model", check_model),
        ("widgets", check_widgets),
        ("JupyterLab", check_jupyterlab),
        ("progress file", check_progress_file),
    )
    return Report(finding for name, check in checks for finding in _guarded(name, check))
