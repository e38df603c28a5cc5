"""How a command ends when something is wrong: one sentence on stderr, an exit code, no traceback."""

from __future__ import annotations

import io
import sys
from typing import Any

import typer
from typer.core import TyperGroup

# The package's own errors. Their messages name the argument or the file, and the mend.
EXPECTED = (ValueError, TypeError, OSError, ImportError)

# How a stream refuses to print: "surrogateescape" is Python's choice for the C locale.
_FAILS_ON_LETTERS = ("strict", "surrogateescape")


def one_sentence(error: BaseException) -> str:
    """`error` as one line of text for a terminal.

    An OSError of the system reads "No such file or directory: 'x'", without its number. An error
    that the package did not foresee names its type and how to see more.
    """
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror
        if error.filename is not None:
            text = f"{text}: '{error.filename}'"
    else:
        text = str(error)
    text = " ".join(text.split())
    if isinstance(error, EXPECTED) and text:
        return text
    name = type(error).__name__
    said = f" ({text})" if text else ""
    return f"slmlab met an unforeseen {name}{said}: `slmlab --debug COMMAND` shows where."


class OneSentenceGroup(TyperGroup):
    """A command group that turns an exception into one sentence and exit code 1.

    Wrong usage keeps exit code 2. With ``--debug`` the traceback is shown as Python prints it.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line; a letter that the terminal cannot show becomes a question mark."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper) and stream.errors in _FAILS_ON_LETTERS:
                stream.reconfigure(errors="replace")
        return super().main(*args, **kwargs)

    def invoke(self, ctx: Any) -> Any:
        """Run the command that `ctx` holds."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # the reader of a pipe went away (`| head`): the framework ends quietly
        except Exception as error:
            # The framework's own exceptions (usage, exit, abort) carry their exit code with them.
            framework = hasattr(error, "exit_code") or isinstance(error, typer.Abort)
            if framework or ctx.params.get("debug"):
                raise
            typer.echo(one_sentence(error), err=True)
            raise typer.Exit(1) from None
