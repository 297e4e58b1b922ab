"""Whether this thread runs an event loop, which nothing may keep waiting."""

import sys


def on_event_loop() -> bool:
    """True in a coroutine, also within SQLAlchemy's run_sync."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is None:
        return False
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
