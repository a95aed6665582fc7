"""``python -m aml_mirror``."""

import sys

from aml_mirror.cli import main

sys.exit(main())
