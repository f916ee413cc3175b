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
from serve_app.preparing import Preprocess
from serve_app.preprocess.picture_urls import UrlPolicy
from serve_app.preprocess.rules import MEDIA_TYPES
from serve_app.preprocess.wish import FIRST_FRAME, Frames, Pages

DOCUMENTS = Carried("document", ("application/pdf",))
_ADDRESS = re.compile(r"https?:", re.I)


@dataclass(frozen=True, slots=True)
class PictureRules:
    """What is taken.

    Attributes:
        pictures: what data URLs of pictures may hold.
        max_bytes: of a picture that is sent along.
        addresses: which are fetched.
        max_frames: of one picture.
        max_document_bytes: None where documents are not taken.
        dpi: of a document whose sender names none.
    """

    pictures: Carried
    max_bytes: int
    addresses: UrlPolicy
    max_frames: int
    max_document_bytes: int | None
    dpi: int

    @classmethod
    def of(cls, config: Preprocess) -> PictureRules:
        documents = config.documents
        types = tuple(media for form in config.formats for media in MEDIA_TYPES[form])
        return cls(
            pictures=Carried("picture", types),
            max_bytes=config.max_picture_bytes,
            addresses=UrlPolicy.of(config.fetch),
            max_frames=config.max_frames,
            max_document_bytes=documents.max_bytes if documents.enabled else None,
            dpi=documents.dpi,
        )


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
    data = rules.pictures.bytes_of(url, param, rules.max_bytes)
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
