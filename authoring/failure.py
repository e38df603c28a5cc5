"""The one exception of the notebook pipeline."""


class BuildError(ValueError):
    """A source that cannot become a notebook; the message names the file, the cell and the mend."""
