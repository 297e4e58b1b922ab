"""Servers fork after the client was made: gunicorn, uwsgi, Celery's prefork.

A connection, a lock and a thread of the parent are of no use in the child. So in every child each
part lets go of what it inherited, without closing it, for the parent still uses it.
"""

import os
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """A part that holds connections, locks or threads."""

    def after_fork(self) -> None:
        """In the child: begin anew."""


_parts: "weakref.WeakSet[ForkAware]" = weakref.WeakSet()


def begin_anew_in_children(part: ForkAware) -> None:
    """Has part.after_fork called in every child that this process forks from now on."""
    _parts.add(part)


def _in_child() -> None:
    for part in list(_parts):
        part.after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which has no fork
    os.register_at_fork(after_in_child=_in_child)
