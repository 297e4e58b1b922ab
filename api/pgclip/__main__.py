"""`python -m pgclip` is the command `pgclip`."""

import sys

from pgclip.cli import main

sys.exit(main())
