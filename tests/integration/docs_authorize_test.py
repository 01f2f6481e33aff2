"""The page to explore the API of a service that asks who it is: "Authorize" in a real browser."""

import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import CHROMEDRIVER, CHROMIUM, PATIENCE, console, running_chromium
from tests.support import ServerProcess, running_server, wait_until
from tests.tokens import READER, write_tokens


@unittest.skipUnless(CHROMIUM and CHROMEDRIVER, 'Chromium or its driver is not installed')
class AuthorizeTest(unittest.TestCase):
    server: ClassVar[ServerProcess]
    browser: ClassVar[Chrome]

    @classmethod
    def setUpClass(cls) -> None:
        tokens = Path(cls.enterClassContext(tempfile.TemporaryDirectory()), 'tokens')
        write_tokens(tokens)
        cls.server = cls.enterClassContext(running_server(auth={'tokens': {'file': str(tokens)}}))
        cls.browser = cls.enterClassContext(running_chromium())

    def wait_for(self, selector: str) -> WebElement:
        """The first element that a selector matches, once there is one."""
        wait_until(lambda: self.browser.find_elements(By.CSS_SELECTOR, selector), PATIENCE)
        return self.browser.find_element(By.CSS_SELECTOR, selector)

    def open(self, method: str) -> None:
        """Makes ready to try out an operation on the book."""
        self.wait_for(f'.opblock-{method} [data-path="/addressbook"]').click()
        self.wait_for(f'.opblock-{method} .try-out__btn').click()

    def execute(self, method: str, status: str) -> None:
        """Tries it out, and waits for that status."""
        self.wait_for(f'.opblock-{method} .execute').click()
        cell = f'.opblock-{method} .live-responses-table tbody .response-col_status'
        # In one step, for the page may put another element in the place of one that was found.
        script = f'return document.querySelector("{cell}")?.textContent'
        wait_until(
            lambda: str(self.browser.execute_script(script)).startswith(status), PATIENCE)

    def authorize(self, token: str) -> None:
        self.wait_for('.auth-wrapper .authorize').click()
        self.wait_for('.modal-ux input').send_keys(token)
        self.wait_for('.modal-ux .authorize').click()
        self.wait_for('.modal-ux .btn-done').click()

    def test_who_authorizes_may_try_out_what_the_token_is_good_for(self) -> None:
        self.browser.get(f'http://127.0.0.1:{self.server.port}/docs')
        self.wait_for('.opblock')
        self.assertEqual([], console(self.browser))
        self.open('get')
        self.execute('get', '401')
        self.authorize(READER)
        self.execute('get', '200')
        self.open('post')
        self.execute('post', '403')
        refused = console(self.browser)
        self.assertEqual(['401', '403'], [
            status for line in refused for status in ('401', '403') if f' {status} ' in line])


if __name__ == '__main__':
    unittest.main()
