"""From hand-written lesson sources to the notebooks that people open (development only)."""
