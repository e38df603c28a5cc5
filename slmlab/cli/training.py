"""`slmlab train` and `slmlab evaluate`: how the embedded models are made and judged."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from rich.table import Table


def run_training(recipe_name: str, out: Path | None, work: Path | None, threads: int) -> str:
    """Train a recipe (go on with an interrupted run) and return the sentence to print."""
    import torch

    from slmlab.training import load_recipe, train

    recipe = load_recipe(recipe_name)
    target = out if out is not None else Path("runs") / recipe.name
    device = "cuda" if torch.cuda.is_available() else "cpu"
    train(recipe, target, work=work, device=device, threads=threads)
    return f"{target} holds the model. `slmlab evaluate {target} --card` measures it."


def run_evaluation(model: str, card: bool) -> None:
    """Print the evaluation table of a model, and write its card where ``card`` is set."""
    import slmlab
    from slmlab.measure.card import evaluation_table, write_card
    from slmlab.models import model_directory
    from slmlab.training.provenance import read_provenance

    directory = model_directory(model)
    facts = directory / "training.json"
    if card and not facts.is_file():
        raise ValueError(f"{facts} is missing: a card is written for models of `slmlab train`")
    teacher = read_provenance(directory)["recipe"].get("teacher") if facts.exists() else None
    rows = evaluation_table(slmlab.load(model), slmlab.load(teacher) if teacher else None)
    table = Table(title=str(model))
    for heading in ("", "measured", "target", "met"):
        table.add_column(heading)
    for row in rows:
        met = "" if row.met is None else ("yes" if row.met else "no")
        table.add_row(row.what, row.value, row.wanted, met)
    Console().print(table)
    if card:
        Console().print(f"{write_card(directory, rows)} is written.")
