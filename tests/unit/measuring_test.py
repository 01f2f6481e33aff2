"""What is added to the measurement of coverage."""

import sqlite3
import tempfile
import unittest
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock, patch

from coverage import CoverageData

from tests import measuring


class AddTest(unittest.TestCase):
    def test_what_a_killed_process_has_left_half_written_is_left_out(self) -> None:
        folder = Path(self.enterContext(tempfile.TemporaryDirectory()))
        whole = CoverageData(str(folder / 'coverage.1'))
        whole.add_lines({'/reached.py': [1]})
        whole.write()
        whole.close()
        with closing(sqlite3.connect(folder / 'coverage.2')) as half:
            half.execute('CREATE TABLE coverage_schema (version INTEGER)')
        all_of_it = CoverageData(no_disk=True)
        self.addCleanup(all_of_it.close, force=True)  # what is not on disk is kept open otherwise
        measurement = Mock(get_data=Mock(return_value=all_of_it))
        with patch('coverage.Coverage.current', return_value=measurement):
            measuring.add(folder / 'coverage')
        self.assertEqual({'/reached.py'}, all_of_it.measured_files())


if __name__ == '__main__':
    unittest.main()
