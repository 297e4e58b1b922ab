"""The processes of a server, found by name and work folder: nobody else is ever signalled."""

import os
import signal
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pgclip.local.programs import required


def processes_in(
    folder: Path, names: tuple[str, ...], child_titles: tuple[str, ...]
) -> tuple[Any, list[Any]]:
    """Find the main process (or None) and its children: psutil processes that work in `folder`.

    A server's children carry its name, but show a title that begins with one of `child_titles`.
    """
    main, children = None, []
    for process in required("psutil").process_iter(["name", "cmdline"]):
        shown = process.info["cmdline"]  # none: it is dying, or not ours to look at
        if not shown or process.info["name"] not in names or not _works_in(process, folder):
            continue
        if main is None and not shown[0].startswith(child_titles):
            main = process
        else:
            children.append(process)
    return main, children


def send(number: signal.Signals, processes: Iterable[Any]) -> None:
    """Signal the processes that still live; psutil checks that no id was reused meanwhile."""
    for process in processes:
        with suppress(required("psutil").Error):
            process.send_signal(number)


def _works_in(process: Any, folder: Path) -> bool:
    """Whether it is the same folder, not only one of the same name in another container."""
    link = f"/proc/{process.pid}/cwd"
    try:
        return os.path.samefile(link if os.path.lexists(link) else process.cwd(), folder)
    except (OSError, required("psutil").Error):
        return False
