"""The Celery app, from the environment's settings, for Celery's own tools.

    celery -A pgclip.celery_app inspect ping
    celery -A pgclip.celery_app flower

Workers and clients make their own. What a worker does is looked up in Postgres (pgclip.queue,
pgclip.workers): Celery sees its tickets only.
"""

from pgclip.settings import Settings
from pgclip.submitting.broker import make_app

app = make_app(Settings.load())
