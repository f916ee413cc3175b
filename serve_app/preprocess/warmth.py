"""One small file of each format, made here, so that a worker has met them all before it is shut in.

Pillow imports a format's code, and Python its codecs, when they are first needed.
"""

from __future__ import annotations

import encodings
import importlib
import pkgutil
from collections.abc import Iterator
from io import BytesIO

from PIL import AvifImagePlugin, ExifTags, Image, ImageCms

from serve_app.preprocess.rules import DecodeRules
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Pages, Wish


def samples(rules: DecodeRules) -> Iterator[tuple[bytes, Wish]]:
    """Files, and what to wish of them."""
    Image.init()
    for codec in pkgutil.iter_modules(encodings.__path__):
        if codec.name not in ("mbcs", "oem"):
            importlib.import_module(f"encodings.{codec.name}")
    if "heif" in rules.formats:
        import pillow_heif

        pillow_heif.register_heif_opener()
        pillow_heif.options.DECODE_THREADS = 1
    # Threads cannot be started later.
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    side = max(rules.min_side, 16)
    colour = Image.new("RGB", (side, side), "teal")
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    for form in rules.formats:
        stream = BytesIO()
        colour.save(stream, form.upper(), exif=exif, icc_profile=profile)
        yield stream.getvalue(), FIRST_FRAME
    if "gif" in rules.formats:
        stream = BytesIO()
        colour.save(stream, "GIF", save_all=True, append_images=[colour.rotate(90)])
        yield stream.getvalue(), Frames(count=2)
    if rules.max_pages:
        stream = BytesIO()
        colour.save(stream, "PDF")
        yield stream.getvalue(), Pages()
