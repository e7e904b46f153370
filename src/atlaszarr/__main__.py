"""``python -m atlaszarr`` is the command ``atlaszarr``."""

import sys

from .cli.commands import main

sys.exit(main())
