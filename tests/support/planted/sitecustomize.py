"""Plants a decoder that misbehaves when a "picture" tells it to: ABORT, HANG,
EAT MEMORY or RAISE.

Python imports this module at start-up where its folder is on PYTHONPATH, so it reaches the
decoding processes as well.
"""

import os
import time
from typing import Any

from pgclip_workers.pictures import decode

_pixels = decode._pixels


def _planted(data: bytes, *rest: Any) -> Any:
    if data.startswith(b"ABORT"):
        os.abort()
    if data.startswith(b"HANG"):
        time.sleep(3600)
    if data.startswith(b"EAT MEMORY"):
        bytearray(2**40)
    if data.startswith(b"RAISE"):
        raise ZeroDivisionError("planted")
    return _pixels(data, *rest)


decode._pixels = _planted
