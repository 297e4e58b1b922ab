"""`pgclip models`: how far they are; a new one; which is searched."""

from pgclip.cli.models import looking, adding, exchanging  # isort: skip: as help shows them
from pgclip.cli.models.app import app

__all__ = ["adding", "app", "exchanging", "looking"]
