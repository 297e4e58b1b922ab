"""Pages to look at what pgclip has: search, items, state. An ASGI application on Starlette.

    from pgclip_web import Access, create_app
    app.mount("/browse", create_app(client, access=Access(user_header="X-Forwarded-User")))

`pgclip browse` serves it on this machine; `pgclip_web.asgi:app` is one for any ASGI server.
"""

from pgclip_web.access import Access
from pgclip_web.app import create_app

__all__ = ["Access", "create_app"]
