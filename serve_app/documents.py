"""Whether documents are taken, and how much of them: the config's part of it."""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve_app.preprocess.wish import LEAST_DPI, MOST_DPI


class Documents(BaseModel):
    """PDF documents in ``data:`` URLs, shown page by page as pictures; needs the extra
    ``documents``, which brings pdfium.

    Attributes:
        enabled: else requests that hold one are refused.
        max_bytes: of one as it is sent.
        max_pages: shown of one; a request's pages also count as its pictures.
        dpi: dots per inch where the request names none. 150 fills the 1,024 pixels that the model
            sees with any paper down to 6.8 inches, the longer side of a postcard.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    max_bytes: int = Field(20 * 2**20, ge=64)
    max_pages: int = Field(32, ge=1)
    dpi: int = Field(150, ge=LEAST_DPI, le=MOST_DPI)

    @model_validator(mode="after")
    def _drawable(self) -> Documents:
        if self.enabled and find_spec("pypdfium2") is None:
            raise ValueError("documents need pdfium: pip install 'pixtral-serve[documents]'")
        return self
