"""``python -m slmlab.distill CONFIG``, and ``accelerate launch -m slmlab.distill CONFIG``."""

from slmlab.distill.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
