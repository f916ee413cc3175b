"""Any picture's colours as the model knows them: sRGB, 8 bits a channel, white where transparent.

A picture without a colour profile, or with sRGB's, comes out bit for bit as mistral-common makes
it RGB, but for 16 bits of grey, which are scaled where Pillow clips. mistral-common ignores
profiles: with another one (Display P3, Adobe RGB, inks) colours come out as people see them, by
littlecms with perceptual intent, and differ from mistral-common's. A broken profile is ignored.
"""

from __future__ import annotations

from contextlib import suppress
from io import BytesIO

from PIL import Image, ImageCms

from shards.pixels import rgb_on_white

# What a profile's colours are called, by the modes whose pixels it can be meant for.
_SPACES = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}


def in_srgb(image: Image.Image) -> Image.Image:
    """In mode RGB; ``image`` is loaded. Frees what it does not return."""
    space, profile = _profile(image)
    if profile is None:
        return rgb_on_white(image)
    if space == "CMYK" == image.mode:
        return _converted(image, profile)
    flat = rgb_on_white(image)
    if space == "L" and _is_grey(image):
        return _converted(flat.getchannel(0), profile)
    if space == "RGB" and not (_is_grey(image) or image.mode == "CMYK"):
        return _converted(flat, profile)
    return flat


def _is_grey(image: Image.Image) -> bool:
    return image.mode in ("1", "L", "LA", "La", "F") or image.mode.startswith("I")


def _converted(image: Image.Image, profile: ImageCms.ImageCmsProfile) -> Image.Image:
    with suppress(ImageCms.PyCMSError):
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, profile, srgb, outputMode="RGB")
        if converted is not None:
            return converted
    return image.convert("RGB")


def _profile(image: Image.Image) -> tuple[str, ImageCms.ImageCmsProfile | None]:
    """The embedded profile and its pixels' mode; None where there is nothing to convert."""
    embedded = image.info.get("icc_profile")
    if not embedded:
        return "", None
    with suppress(ImageCms.PyCMSError, OSError, TypeError, ValueError):
        profile = ImageCms.ImageCmsProfile(BytesIO(embedded))
        if "srgb" not in ImageCms.getProfileDescription(profile).lower():
            space = _SPACES.get(profile.profile.xcolor_space)
            if space is not None:
                return space, profile
    return "", None
