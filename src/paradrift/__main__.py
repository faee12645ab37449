"""``python -m paradrift``."""

import sys

from paradrift.cli import main

sys.exit(main())
