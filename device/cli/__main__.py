"""`python -m device.cli` is `nanotox`."""

import sys

from device.cli import main

sys.exit(main())
