"""``python -m addrservice``."""

import sys

from addrservice.server import main

sys.exit(main())
