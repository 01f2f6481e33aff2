"""The trials. Each is a module with ``run(bench) -> Result``, and is named in ``NAMES``."""

from typing import Final

# In the order in which they run. A module is imported when its turn has come.
NAMES: Final = (
    'throughput', 'work', 'sizes', 'stores', 'postgresql', 'connections', 'processes', 'latency',
    'memory', 'startup', 'transport', 'scale', 'functions',
)
