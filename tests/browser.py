"""A headless Chromium for tests, where one is installed; nothing is downloaded."""

import json
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final
from unittest import mock
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions, ChromeService

from tests.support import wait_until

CHROMIUM: Final = shutil.which('chromium')
CHROMEDRIVER: Final = shutil.which('chromedriver')

PATIENCE: Final = 30.0  # seconds: on a busy machine a browser needs much more than a server

FLAGS: Final = (
    '--headless', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
    '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',  # nobody gets to another host
)


@contextmanager
def running_chromium() -> Iterator[Chrome]:
    """A new Chromium that keeps its console's log and that of its requests."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            driver = _start(folder)
            try:
                driver.set_page_load_timeout(PATIENCE)
                yield driver
            finally:
                driver.quit()
        finally:
            wait_until(lambda: not _kill_those_of(folder))


def console(driver: Chrome) -> list[str]:
    """What the console has shown, errors and broken policies too, since last asked."""
    return [line['message'] for line in _log(driver, 'browser')]


def hosts_asked(driver: Chrome) -> set[str]:
    """The hosts, with their ports, that pages have sent requests to since last asked."""
    events = [json.loads(line['message'])['message'] for line in _log(driver, 'performance')]
    urls = [urlsplit(event['params']['request']['url']) for event in events
            if event['method'] == 'Network.requestWillBeSent']
    return {url.netloc for url in urls if url.scheme not in ('chrome', 'chrome-untrusted', 'data')}


def _log(driver: Chrome, name: str) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = driver.get_log(name)  # type: ignore[no-untyped-call]  # theirs
    return lines


def _start(folder: str) -> Chrome:
    homes = dict.fromkeys(('HOME', 'TMPDIR', 'XDG_CONFIG_HOME', 'XDG_CACHE_HOME'), folder)
    with mock.patch.dict(os.environ, homes, no_proxy='*'):
        return Chrome(options=_options(folder), service=ChromeService(CHROMEDRIVER))


def _options(folder: str) -> ChromeOptions:
    assert CHROMIUM is not None
    options = ChromeOptions()
    options.binary_location = CHROMIUM
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    for flag in (*FLAGS, f'--user-data-dir={folder}/profile'):
        options.add_argument(flag)
    if os.geteuid() == 0:
        options.add_argument('--no-sandbox')  # as root, Chromium does not start with one
    return options


def _kill_those_of(folder: str) -> bool:
    """Kills the processes, if there are any, whose command line names a folder: helpers stay on."""
    found = False
    for entry in Path('/proc').glob('[0-9]*/cmdline'):
        with suppress(OSError):  # it has ended meanwhile
            if folder.encode() in entry.read_bytes():
                found = True
                os.kill(int(entry.parent.name), signal.SIGKILL)
    return found
