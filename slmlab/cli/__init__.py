"""The command line: ``slmlab lab``, ``update``, ``doctor``, ``list``, ``hint``, ``progress`` ...

``main.py`` holds the typer app; each command delegates to a small file beside it or to a room
below. Heavy rooms are imported inside commands, so that ``slmlab --help`` needs no torch.
"""
