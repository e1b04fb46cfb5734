"""Takes the pictures of the playground's guide: a real server with glm-mini, a real browser (Debian's Chromium and driver).

    python docs/screenshots.py            # writes docs/images/playground-*.png

What stands in a picture is what the model says; nothing is typed into a result.
"""

from __future__ import annotations

import base64
import io
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser_samples import Person, served  # noqa: E402

IMAGES = ROOT / "docs" / "images"
SCALE = 1.5
"""Pixels of a picture to one of the page."""
COLOURS = 256


def size(person: Person, width: int, height: int) -> None:
    """Gives the page a window of so many of its pixels."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": SCALE, "mobile": False}
    person.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    person.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})


def take(person: Person, name: str) -> None:
    """Writes what the window shows, in a palette: a third of the bytes."""
    shot = person.driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})
    with Image.open(io.BytesIO(base64.b64decode(shot["data"]))) as picture:
        picture.convert("RGB").quantize(COLOURS).save(IMAGES / name, optimize=True)


def example(person: Person, tab: str, height: int) -> None:
    """Opens a tab in a window of that height and takes its first example."""
    size(person, 800, height)
    person.tab(tab)
    person.all(f"#{tab}-examples button")[0].click()


def fill(person: Person, language: str) -> None:
    example(person, "fill", 900)
    person.run("fill")
    person.one("#fill-result .blank").click()
    person.one("#fill-likeliest .choice")
    take(person, f"playground-fill-{language}.png")
    size(person, 390, 800)
    person.driver.execute_script("window.scrollTo(0, 110)")
    take(person, f"playground-phone-{language}.png")


def explain(person: Person, language: str) -> None:
    example(person, "explain", 1200)
    person.one("#explain-run").click()
    person.one("#explain-result iframe")
    time.sleep(2)  # its script draws
    take(person, f"playground-explain-{language}.png")


def compare(person: Person, language: str) -> None:
    example(person, "compare", 1120)
    person.one("#compare-run").click()
    for side in ("a", "b"):
        person.one(f"#compare-side_{side}-result .card")
    before = None
    while before != (before := [card.text for card in person.all(".result .card")]):
        time.sleep(3)  # both are written to the end
    take(person, f"playground-compare-{language}.png")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder, served(Path(folder) / "log.txt", "glm-mini", "--device", "cpu") as address:  # fmt: skip
        for language, accepted in (("en", "en-US"), ("zh", "zh-CN")):
            person = Person(Path(folder) / language, accepted)
            try:
                person.driver.get(address + ("/zh/" if language == "zh" else "/"))
                for picture in (fill, explain, compare):
                    picture(person, language)
            finally:
                person.driver.quit()


if __name__ == "__main__":
    main()
