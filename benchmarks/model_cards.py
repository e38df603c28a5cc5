"""The evaluation tables of the embedded models, measured again from the shipped files.

Prints the tables; the last line is JSON.
"""

from __future__ import annotations

import dataclasses
import json

import torch

import slmlab
from slmlab.measure.card import evaluation_table


def main() -> None:
    torch.set_num_threads(1)
    teacher, draft = slmlab.load("tiny"), slmlab.load("tiny-draft")
    tables = {
        "tiny": evaluation_table(teacher),
        "tiny-draft": evaluation_table(draft, teacher),
    }
    for name, rows in tables.items():
        for row in rows:
            print(f"{name:11} {row.what:34} {row.value}")
    print(
        json.dumps({name: [dataclasses.asdict(r) for r in rows] for name, rows in tables.items()})
    )


if __name__ == "__main__":
    main()
