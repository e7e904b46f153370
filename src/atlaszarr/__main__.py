"""``python -m atlaszarr`` is the command ``atlaszarr``."""

import sys

from .cli import main

sys.exit(main())
