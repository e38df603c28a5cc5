"""A notebook as it is delivered: without the outputs of the machine that built it.

The stored outputs are for readers on GitHub. In a learner's copy they would give an answer away
before it is predicted, and another machine's numbers would look like the learner's own.
"""

from __future__ import annotations

import json


def cleared(name: str, data: bytes) -> bytes:
    """`data` of the file `name` with outputs [] and execution_count null in every code cell.

    Only the suffix of `name` matters. A file that is no readable notebook, or that holds nothing
    to clear, is returned byte for byte. Else the notebook is written again as nbformat writes it
    (indent 1, keys in their order), so that only what was cleared differs.
    """
    if not name.endswith(".ipynb"):
        return data
    try:
        content = json.loads(data.decode("utf-8"))
        changed = False
        for cell in content["cells"]:
            if cell["cell_type"] != "code":
                continue
            if cell.get("outputs") != [] or cell.get("execution_count", 0) is not None:
                cell["outputs"], cell["execution_count"] = [], None
                changed = True
        if not changed:
            return data
        end = "\n" if data.endswith(b"\n") else ""
        return (json.dumps(content, indent=1, ensure_ascii=False) + end).encode("utf-8")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return data
