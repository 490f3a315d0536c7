"""Puts the screenshots that the browser test kept where the documents show them: `make pictures`."""

import sys
from pathlib import Path
from typing import Final

from PIL import Image

IMAGES: Final = Path(__file__).parents[1] / "deploy" / "images"
MAX_BYTES: Final = 300_000
COLOURS: Final = 256  # of a palette: half the size, and no difference that a reader sees
SHOWN: Final = {
    "2-arriving": "arriving",
    "3-held": "page",
    "4-images": "review",
    "5-one-over-the-other": "one-over-the-other",
    "6-sent": "sent",
}
"""Which pictures of `tests/slice/test_story_in_a_browser.py` the documents show, and how the files are called there."""


def keep_pictures(story: Path, images: Path) -> list[Path]:
    """Write the pictures of the folder `story` into `images`, with a palette; returns the files.

    Raises SystemExit with a sentence where one is missing, as when the test was skipped, or is larger than MAX_BYTES.
    """
    written = []
    for name, shown in SHOWN.items():
        source, target = story / f"{name}.png", images / f"{shown}.png"
        if not source.is_file():
            raise SystemExit(f"{source} is missing: did the browser test run to its end?")
        with Image.open(source) as picture:
            picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE).save(target, optimize=True)
        if target.stat().st_size > MAX_BYTES:
            raise SystemExit(f"{target} has {target.stat().st_size} bytes; at most {MAX_BYTES} are kept")
        written.append(target)
    return written


if __name__ == "__main__":
    for file in keep_pictures(Path(sys.argv[1]), IMAGES):
        sys.stdout.write(f"{file}: {file.stat().st_size} bytes\n")
