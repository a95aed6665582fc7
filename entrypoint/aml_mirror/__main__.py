"""``python -m aml_mirror``."""

import sys

from aml_mirror.cli.main import main

sys.exit(main())
