"""Run a notebook from top to bottom in a fresh kernel."""

import tempfile
from pathlib import Path

from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

from authoring.environment import kernel_environment, warm_font_cache
from authoring.failure import BuildError

CELL_TIMEOUT_SECONDS = 300
# A kernel that shares two cores with others has been seen to need more than nbclient's 60.
KERNEL_START_SECONDS = 300


def execute(notebook: NotebookNode, folder: Path, allow_errors: bool = False) -> None:
    """Run every code cell of `notebook` in place, with `folder` as the working directory.

    Checks are strict, and progress goes to a temporary file. A cell that fails or takes more than
    300 seconds raises BuildError naming it, unless `allow_errors` keeps its error as an output.
    """
    warm_font_cache()
    # ignore_cleanup_errors: on Windows a kernel may hold its history file for a moment longer.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        client = NotebookClient(
            notebook,
            kernel_name="python3",
            timeout=CELL_TIMEOUT_SECONDS,
            startup_timeout=KERNEL_START_SECONDS,
            allow_errors=allow_errors,
            coalesce_streams=True,
            record_timing=False,
            store_widget_state=False,
            # A warning of the kernel itself about its sockets says nothing about the lesson.
            extra_arguments=["--IPKernelApp.log_level=40"],
            resources={"metadata": {"path": str(folder)}},
        )
        try:
            client.execute(env=kernel_environment(Path(scratch)))
        except CellTimeoutError:
            raise BuildError(
                f"cell {_running_cell(notebook)} ran longer than {CELL_TIMEOUT_SECONDS} s: "
                "measure less, or cache it."
            ) from None
        except CellExecutionError as error:
            raise BuildError(
                f"cell {_running_cell(notebook)} raises {error.ename}: {error.evalue}"
            ) from None
        except DeadKernelError:
            raise BuildError(
                f"the kernel died in cell {_running_cell(notebook)}: it needs less memory."
            ) from None
        finally:
            notebook.metadata.pop("widgets", None)
            notebook.metadata.language_info = NotebookNode(
                file_extension=".py", mimetype="text/x-python", name="python"
            )


def _running_cell(notebook: NotebookNode) -> str:
    """The id of the cell at which execution stopped: the first without a count, or with an error."""
    for cell in notebook.cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        failed = any(output.output_type == "error" for output in cell.outputs)
        if cell.execution_count is None or failed:
            return str(cell.id)
    return str(notebook.cells[-1].id)
