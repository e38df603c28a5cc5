"""The lessons that a passer-by opens first, as they are handed out."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LESSONS = [
    ROOT / "notebooks" / "00_start_here.ipynb",
    ROOT / "notebooks" / "01_anatomy_and_roofline.ipynb",
]
