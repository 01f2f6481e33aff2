"""``python -m addrservice``."""

import gc
import sys

# Hardly anything that the imports make is garbage; it would be looked for 80 times meanwhile.
gc.set_threshold(10_000)

from addrservice.server import main  # noqa: E402  because the imports come after what is for them

sys.exit(main())
