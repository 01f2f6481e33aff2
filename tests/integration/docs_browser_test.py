"""The page to explore the API, in a real browser against the service as a process."""

import contextlib
import json
import unittest
from typing import Any, ClassVar, Final

from selenium.webdriver import Chrome
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

from tests.browser import (
    CHROMEDRIVER, CHROMIUM, PATIENCE, console, hosts_asked, running_chromium,
)
from tests.support import ServerProcess, running_server, wait_until

METHODS: Final = {'get', 'head', 'post', 'put', 'patch', 'delete', 'options', 'trace'}


@unittest.skipUnless(CHROMIUM and CHROMEDRIVER, 'Chromium or its driver is not installed')
class DocsInBrowserTest(unittest.TestCase):
    server: ClassVar[ServerProcess]
    browser: ClassVar[Chrome]

    @classmethod
    def setUpClass(cls) -> None:
        cls.server = cls.enterClassContext(running_server())
        cls.browser = cls.enterClassContext(running_chromium())

    def setUp(self) -> None:
        self.browser.get(f'http://127.0.0.1:{self.server.port}/docs')
        self.wait_for('.opblock')

    def tearDown(self) -> None:
        """Whatever was done: nobody complains of anything, and no other host was asked."""
        self.assertEqual([], [element.text for element in self.find('.errors-wrapper')])
        self.assertEqual([], console(self.browser))
        self.assertEqual({f'127.0.0.1:{self.server.port}'}, hosts_asked(self.browser))

    def find(self, selector: str) -> list[WebElement]:
        return self.browser.find_elements(By.CSS_SELECTOR, selector)

    def wait_for(self, selector: str) -> WebElement:
        """The first element that a selector matches, once there is one."""
        wait_until(lambda: self.find(selector), PATIENCE)
        return self.find(selector)[0]

    def read(self, path: str) -> Any:
        """The value that a path of the service has."""
        with contextlib.closing(self.server.connect()) as connection:
            connection.request('GET', path)
            return json.loads(connection.getresponse().read())

    def test_every_operation_is_on_the_page(self) -> None:
        described = {(method.upper(), path)
                     for path, item in self.read('/openapi.json')['paths'].items()
                     for method in METHODS & item.keys()}
        methods = [element.text for element in self.find('.opblock-summary-method')]
        paths = [element.get_attribute('data-path')
                 for element in self.find('.opblock-summary-path')]
        self.assertCountEqual(described, zip(methods, paths, strict=True))

    def test_trying_out_a_post_creates_an_entry(self) -> None:
        """What may be left out is, unless it is filled in: a key would allow one entry for ever."""
        before = self.read('/addressbook')
        self.wait_for('.opblock-post [data-path="/addressbook"]').click()
        self.wait_for('.opblock-post .try-out__btn').click()
        body = self.wait_for('.opblock-post textarea.body-param__text').get_attribute('value')
        self.wait_for('.opblock-post .execute').click()
        answer = self.wait_for('.opblock-post .live-responses-table tbody')
        self.assertEqual('201', answer.find_element(By.CLASS_NAME, 'response-col_status').text)
        fields = self.find('.opblock-post .parameters input')
        self.assertEqual({''}, {field.get_attribute('value') for field in fields})
        after = self.read('/addressbook')
        self.assertEqual([json.loads(str(body))],
                         [entry for nickname, entry in after.items() if nickname not in before])


if __name__ == '__main__':
    unittest.main()
