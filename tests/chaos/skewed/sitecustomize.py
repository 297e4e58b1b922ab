"""Sets this process's clock wrong by CHAOS_SKEW seconds.

Python imports this module at start-up where its folder is on PYTHONPATH.
"""

import os
import time

_skew = float(os.environ.get("CHAOS_SKEW", "0"))
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _skew
time.time_ns = lambda: _time_ns() + int(_skew * 10**9)
