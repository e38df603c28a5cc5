"""What a learner's machine pays: import, memory, the lessons' time; and how close we are to
transformers, in numbers and in speed.

Prints a table; the last line is JSON. Speeds are ratios, measured in alternation in this run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import jupytext
import nbformat
import torch
from transformers import AutoModelForCausalLM

import slmlab
from authoring.execution import execute
from slmlab.kv import ContiguousCache
from slmlab.measure import interleaved
from slmlab.models.loading import EMBEDDED

ROOT = Path(__file__).resolve().parent.parent
PEAK = (
    "import slmlab, torch\n"
    "from slmlab.measure import peak_memory\n"
    "torch.set_num_threads(1)\n"
    "work = lambda: slmlab.load('tiny').generate('def main(', max_new_tokens=100)\n"
    "print(peak_memory(work).peak_bytes)"
)
KERNEL_PEAK = "import slmlab.measure\nprint(slmlab.measure.peak_memory(lambda: None).before_bytes)"


def import_seconds(repeats: int = 9) -> float:
    """Fastest `import slmlab` minus the fastest empty start of Python."""
    seconds: dict[str, list[float]] = {"pass": [], "import slmlab": []}
    for _ in range(repeats):
        for code, taken in seconds.items():
            begin = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            taken.append(time.perf_counter() - begin)
    return min(seconds["import slmlab"]) - min(seconds["pass"])


def lesson_cost(path: Path) -> dict[str, float]:
    """Seconds of a lesson in a fresh kernel, and the memory that the kernel holds at its end."""
    notebook = jupytext.read(path)
    cell = nbformat.v4.new_code_cell(
        "print(next(l.split()[1] for l in open('/proc/self/status') if l.startswith('VmHWM')))"
        if Path("/proc/self/status").exists()
        else KERNEL_PEAK
    )
    notebook.cells.append(cell)
    begin = time.perf_counter()
    execute(notebook, ROOT / "notebooks")
    seconds = time.perf_counter() - begin
    scale = 1024 if Path("/proc/self/status").exists() else 1
    peak = int(cell.outputs[0]["text"]) * scale
    return {"seconds": round(seconds, 1), "peak_mb": round(peak / 1e6)}


def against_transformers() -> dict[str, float]:
    """Largest logit difference on tiny, and how many times as fast a decode step is (fp32)."""
    ours = slmlab.load("tiny").model
    theirs = AutoModelForCausalLM.from_pretrained(EMBEDDED / "tiny", dtype=torch.float32).eval()
    ids = torch.randint(0, 2048, (1, 256), generator=torch.Generator().manual_seed(0))
    token = ids[:, -1:]
    cache = ContiguousCache(ours.config, max_length=260)
    with torch.inference_mode():
        difference = (ours(ids, cache) - theirs(ids).logits).abs().max().item()
        past = theirs(ids, use_cache=True).past_key_values

    @torch.inference_mode()
    def their_step() -> None:
        theirs(token, past_key_values=past, use_cache=True)
        past.crop(-1)

    @torch.inference_mode()
    def our_step() -> None:
        ours(token, cache)
        cache.truncate(256)

    race = interleaved(their_step, our_step, repeats=60, warmup=5)
    return {
        "largest_logit_difference": difference,
        "decode_steps_per_transformers_step": round(race.ratio, 2),
        "low": round(race.ratio_low, 2),
        "high": round(race.ratio_high, 2),
        "n": race.n,
    }


def main() -> None:
    peak = subprocess.run([sys.executable, "-c", PEAK], capture_output=True, text=True, check=True)
    measured = {
        "import_seconds": round(import_seconds(), 3),
        "load_and_generate_100_peak_mb": round(int(peak.stdout) / 1e6),
        "lessons": {
            path.parent.name: lesson_cost(path)
            for path in sorted((ROOT / "authoring").glob("[0-9]*/lesson.py"))
        },
        "tiny_against_transformers": against_transformers(),
    }
    for name, value in measured.items():
        print(f"{name:32} {value}")
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
