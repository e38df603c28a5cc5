"""`slmlab train` and `slmlab evaluate`: how the embedded models are made and judged."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table

TEACHER, DRAFT = "tiny", "tiny-draft"
RUNS = Path("runs")


def run_training(
    recipe_name: str, out: Path | None, work: Path | None, threads: int, teacher: Path | None
) -> str:
    """Train a recipe (go on with an interrupted run) and return the sentence to print."""
    import torch

    from slmlab.training import load_recipe, train

    recipe = load_recipe(recipe_name)
    target = out if out is not None else RUNS / recipe.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train(recipe, target, work=work, teacher=teacher, device=device, threads=threads)
    more = f" --teacher {teacher}" if teacher is not None else ""
    return f"{target} holds the model. `slmlab evaluate {target}{more} --card` measures it."


def run_pair(out: Path | None, threads: int) -> str:
    """Train the teacher, then its draft, and write both cards into the model directories."""
    folder = out if out is not None else RUNS
    teacher, draft = folder / TEACHER, folder / DRAFT
    run_training(TEACHER, teacher, None, threads, None)
    run_training(DRAFT, draft, None, threads, teacher)
    run_evaluation(str(teacher), card=True, teacher=None)
    run_evaluation(str(draft), card=True, teacher=teacher)
    return f"{teacher} and {draft} hold the models and their cards."


def run_evaluation(model: str, card: bool, teacher: Path | None) -> None:
    """Print the evaluation table of a model, and write its card where ``card`` is set.

    teacher: of a draft; the embedded model that its training record names if absent.
    """
    import slmlab
    from slmlab.measure.card import evaluation_table, write_card
    from slmlab.models import model_directory
    from slmlab.training.provenance import read_provenance

    directory = model_directory(model)
    facts = directory / "training.json"
    if card and not facts.is_file():
        raise ValueError(f"{facts} is missing: a card is written for models of `slmlab train`")
    name = read_provenance(directory)["recipe"].get("teacher") if facts.exists() else None
    if teacher is not None and name is None:
        raise ValueError(f"{model} is no draft: leave --teacher out")
    guide = slmlab.load(teacher or name) if name is not None else None
    rows = evaluation_table(slmlab.load(model), guide)
    table = Table(title=str(model))
    for heading in ("", "measured", "target", "met"):
        table.add_column(heading)
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "no")
        table.add_row(row.what, row.value, row.wanted, met)
    Console().print(table)
    if card:
        Console().print(f"{write_card(directory, rows)} is written.")
