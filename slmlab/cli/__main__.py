"""`python -m slmlab.cli`, for machines where the console script is not on the path."""

from slmlab.cli.main import app

app(prog_name="slmlab")
