"""The application for an ASGI server: uvicorn pgclip_web.asgi:app, with PGCLIP_* set."""

from pgclip_web.app import create_app

app = create_app()
