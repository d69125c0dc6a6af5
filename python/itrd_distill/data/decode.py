"""Image files to eight bits of three colours; one that cannot be read is named, in one line, whatever is wrong."""

from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError


class UnreadableImage(ValueError):
    """An image cannot be decoded; the message is one line with its name."""

    def __init__(self, told: str) -> None:
        # A loader's process hands it on with its whole traceback for a message, which ends with what was said first.
        super().__init__(told.rstrip().rpartition("\n")[2].removeprefix(f"{__name__}.{type(self).__name__}: "))


def decode(file: Path | BytesIO, called: str) -> Image.Image:
    """The image in RGB.

    Args:
        file: its path or content.
        called: how an error names it.

    Raises:
        UnreadableImage: it is cut short, damaged, no image, not there, or of a kind that eight bits cannot hold.
    """
    try:
        with Image.open(file) as image:
            if image.mode.startswith("I;16"):
                # `convert` would cut every value over 255 down to white.
                return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
            if image.mode in ("I", "F"):
                raise ValueError("its pixels are 32-bit numbers of unknown range: save it with 8 or 16 bits")
            return image.convert("RGB")
    # Pillow's decoders raise OSError, SyntaxError, ValueError, struct.error, DecompressionBombError and others.
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        reason = "it is of no format that Pillow knows" if unknown else str(error)
        told = " ".join(reason.split()) or type(error).__name__
        raise UnreadableImage(
            f"{' '.join(called.split())} cannot be read as an image ({told}); mend or remove it"
        ) from None
