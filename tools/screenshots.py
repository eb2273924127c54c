"""Takes pictures of HTML pages in headless Chromium; fails on console errors, requests, and what axe finds.

    python tools/screenshots.py small/report.html --out docs/pictures

Needs Chromium with its driver (Debian: apt install chromium chromium-driver) and `pip install 'keras-xaic[docs]'`. Of what axe
finds, serious and critical barriers count; `--axe` takes another release of it than that of the package axe-core-python.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import sys
import tempfile

from selenium import webdriver

WIDTHS = {"desktop": 1180, "phone": 390}
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--allow-file-access-from-files",
)


def open_browser(profile: str) -> webdriver.Chrome:
    options = webdriver.ChromeOptions()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
    options.binary_location = "/usr/bin/chromium"
    return webdriver.Chrome(options=options, service=service)


def faults(browser: webdriver.Chrome, page: str) -> list[str]:
    """Console messages of the page, and addresses it asked for that are neither files of its own nor inside it."""
    found = [f"console: {entry['message']}" for entry in browser.get_log("browser")]
    home = page.rsplit("/", 1)[0]
    for entry in browser.get_log("performance"):
        message = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            url = message["params"]["request"]["url"]
            if not url.startswith(("data:", home)):
                found.append(f"request: {url}")
    return found


def axe_script() -> pathlib.Path | None:
    """axe-core as axe-core-python brings it; None where that is not installed."""
    found = importlib.util.find_spec("axe_core_python")
    places = [] if found is None else list(found.submodule_search_locations or [])
    return next((one for place in places for one in pathlib.Path(place).rglob("axe.min.js")), None)


def barriers(browser: webdriver.Chrome, axe: pathlib.Path | None) -> list[str]:
    """What keeps people out, as far as axe-core can see it."""
    if axe is None:
        return []
    browser.execute_script(axe.read_text(encoding="utf-8"))
    found = browser.execute_async_script("axe.run().then(arguments[arguments.length - 1])")["violations"]
    return [
        f"accessibility: {one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def take(
    browser: webdriver.Chrome,
    page: str,
    width: int,
    scheme: str,
    target: pathlib.Path,
    height: int | None,
    axe: pathlib.Path | None,
) -> list[str]:
    media = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
    size = {"width": width, "height": 800, "deviceScaleFactor": 2 if width < 600 else 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get(page)
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    full = browser.execute_script("return document.documentElement.scrollHeight")
    size["height"] = min(full, height or full)
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.save_screenshot(str(target))
    problems = [*faults(browser, page), *barriers(browser, axe)]
    return problems + ([f"layout: {wide} pixels wide on a screen of {width}"] if wide > width else [])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("page", type=pathlib.Path)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("build/screenshots"))
    parser.add_argument("--axe", type=pathlib.Path, default=axe_script(), help="axe.min.js of axe-core")
    parser.add_argument("--height", type=int, help="cut pictures off after so many pixels")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    page, problems = arguments.page.resolve().as_uri(), []
    with tempfile.TemporaryDirectory() as profile:
        browser = open_browser(profile)
        try:
            browser.get("about:blank")
            browser.get_log("performance")  # what the browser itself loads when it starts is not the page's
            for name, width in WIDTHS.items():
                for scheme in ("light", "dark"):
                    target = arguments.out / f"{arguments.page.stem}-{name}-{scheme}.png"
                    problems += take(browser, page, width, scheme, target, arguments.height, arguments.axe)
                    print(target)
        finally:
            browser.quit()
    for problem in problems:
        print(problem, file=sys.stderr)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
