"""The address book service.

Holds only what all rooms share: the version, the name of the service's logger and the JSON Schema
of an address book entry. Reading the schema is the one thing that happens at import.
"""

import json
from pathlib import Path
from typing import Any, Final

__version__: Final = '1.0.0'

LOGGER_NAME: Final = 'addrservice'

ENTRY_SCHEMA: Final[dict[str, Any]] = json.loads(
    Path(__file__).with_name('address-book-v1.0.json').read_text(encoding='utf-8')
)
