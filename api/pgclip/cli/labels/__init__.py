"""`pgclip labels`: sets; judged and taught; promises and decisions; reviews."""

from pgclip.cli.labels import sets, teaching, promising, reviewing  # isort: skip: as help shows them
from pgclip.cli.labels.app import app

__all__ = ["app", "promising", "reviewing", "sets", "teaching"]
