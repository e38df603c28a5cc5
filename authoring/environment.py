"""The environment in which a notebook is run, by the build and by nbval alike.

Both must agree: what nbval compares with is what the build stored.
"""

import importlib
import os
from pathlib import Path

# Settings of the person who builds; none of them may reach a stored output.
_DROPPED = (
    "SLMLAB_MODEL",
    "PYTHONDONTWRITEBYTECODE",
    "PYTHONWARNINGS",
    "PYTHONSTARTUP",
    "MPLBACKEND",
    "FORCE_COLOR",
    "NO_COLOR",
)


def kernel_environment(scratch: Path) -> dict[str, str]:
    """Environment variables for a kernel whose progress and history go to the folder `scratch`.

    Checks are strict, one thread, no GPU, no download: every reader's machine can do that.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _DROPPED}
    environment.update(
        SLMLAB_STRICT="1",
        SLMLAB_PROGRESS=str(scratch / "progress.json"),
        IPYTHONDIR=str(scratch / "ipython"),
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        TOKENIZERS_PARALLELISM="false",
        CUDA_VISIBLE_DEVICES="",
        HF_HUB_OFFLINE="1",
        PYTHONHASHSEED="0",
        COLUMNS="88",
    )
    return environment


def warm_font_cache() -> None:
    """Build matplotlib's font cache where it is missing.

    In a new home folder matplotlib announces that work on stderr, inside the first plot's cell.
    """
    importlib.import_module("matplotlib.font_manager")
