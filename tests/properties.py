"""How properties are tested: the same examples each time, and nothing left behind."""

import tempfile
import unittest
from typing import Final

from hypothesis import configuration, settings

PROPERTY: Final = settings(max_examples=60, deadline=None, database=None, derandomize=True)


def keep_home_temporary() -> None:
    """For ``setUpModule``: what Hypothesis reads of Unicode goes into a folder that goes again."""
    folder = tempfile.TemporaryDirectory()
    unittest.addModuleCleanup(folder.cleanup)
    configuration.set_hypothesis_home_dir(folder.name)
    unittest.addModuleCleanup(configuration.set_hypothesis_home_dir, None)
