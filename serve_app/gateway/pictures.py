"""Pictures and documents that parts of a message carry, and addresses of pictures.

Only the wrapping is looked at here; decoding and fetching are preprocessing's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from serve_app.errors import InvalidRequest
from serve_app.gateway.content_parts import DocumentPart, ImagePart, page_ranges
from serve_app.gateway.data_urls import Carried
from serve_app.messages import PictureSource
from serve_app.preprocess.picture_urls import NOTHING_ALLOWED, UrlPolicy
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Pages

PICTURES = Carried("picture", ("image/jpeg", "image/png", "image/webp", "image/gif"))
DOCUMENTS = Carried("document", ("application/pdf",))
_ADDRESS = re.compile(r"https?:", re.I)


@dataclass(frozen=True, slots=True)
class PictureRules:
    """What is taken.

    Attributes:
        max_bytes: of a picture that is sent along.
        addresses: which are fetched.
        max_frames: of one picture.
        max_document_bytes: None where documents are not taken.
        dpi: of a document whose sender names none.
    """

    max_bytes: int
    addresses: UrlPolicy = NOTHING_ALLOWED
    max_frames: int = 1
    max_document_bytes: int | None = None
    dpi: int = 150


def source_of(part: ImagePart | DocumentPart, place: str, rules: PictureRules) -> PictureSource:
    """What the part at ``place`` in the body carries, or its address if it may be fetched.

    Raises:
        InvalidRequest: neither; the field is named.
    """
    if isinstance(part, ImagePart):
        return _picture(part, f"{place}.image_url", rules)
    return _document(part, f"{place}.document_url", rules)


def _picture(part: ImagePart, param: str, rules: PictureRules) -> PictureSource:
    url, detail = part.image_url.url, part.image_url.detail or "auto"
    frames = _frames(part, param, rules)
    if _ADDRESS.match(url):
        rules.addresses.check(url, param)
        return PictureSource(b"", param, url, frames, detail)
    data = PICTURES.bytes_of(url, param, rules.max_bytes)
    return PictureSource(data, param, None, frames, detail)


def _frames(part: ImagePart, param: str, rules: PictureRules) -> Frames:
    asked = part.image_url.frames
    if asked is None:
        return FIRST_FRAME
    indices = tuple(asked.indices or ())
    if (asked.count or len(indices)) > rules.max_frames:
        raise InvalidRequest(
            f"{asked.count or len(indices)} frames are asked for; at most {rules.max_frames} may be"
            " of one picture",
            param=f"{param}.frames",
            code="too_many_frames",
        )
    return Frames(asked.count, indices)


def _document(part: DocumentPart, param: str, rules: PictureRules) -> PictureSource:
    if rules.max_document_bytes is None:
        raise InvalidRequest(
            "documents are not enabled here; send pages as pictures",
            param=param,
            code="unsupported_value",
        )
    data = DOCUMENTS.bytes_of(part.document_url, param, rules.max_document_bytes)
    pages = Pages(page_ranges(part.pages) if part.pages else (), part.dpi or rules.dpi)
    return PictureSource(data, param, None, pages, part.detail or "auto")
