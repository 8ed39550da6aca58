"""``python -m neatpy`` is the command line."""

from __future__ import annotations

import sys

from neatpy.cli import main

sys.exit(main())
