"""What may be sent as a picture, and what preparing it may cost: the config's part of it."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from serve_app.documents import Documents
from serve_app.fetching import Fetching
from serve_app.preprocess.rules import DecodeRules, Format
from serve_app.preprocess.sizing import LEAST_TOKENS
from serve_app.scaling import Autoscaling

# Of the largest grid: 1,024 pixels a side, patches of 16.
_MOST_PATCHES = 64 * 64


class Preprocess(BaseModel):
    """Limits are of each replica. What is over those of tokens is scaled down until it is not
    (preprocess/sizing.py).

    Attributes:
        formats: what pictures may be; more decoders are more to attack. ``heif`` needs the extra
            ``heif``. Of an animation the first frame is shown unless others are asked for.
        max_picture_pixels: once decoded; exact resizing works in float32, 12 bytes a pixel.
        max_picture_tokens: of one picture.
        max_request_picture_tokens: of all pictures of a request.
        max_frames: that may be shown of one animation or TIFF.
        workers: processes that decode, each on one core and niced; one picture after the other.
        picture_timeout_s: wall-clock time for one picture; a worker that takes longer is replaced.
        worker_memory_bytes: of address space for the pictures, on top of what a worker needs to
            run; 1 GiB is enough for any of 36 megapixels.
        worker_tasks: files that a worker looks at or decodes before a fresh one takes its place.
        sandbox: if the kernel does not filter system calls (seccomp), with ``required`` the tier
            does not start, and with ``preferred`` workers are confined by all else.
        threads: conversations that are tokenised side by side.
        max_pictures_in_hand: that wait or are decoded; beyond it a request is refused with 503,
            unless it is the only one.
        max_bytes_in_hand: likewise of their files.
        max_patch_bytes_in_hand: likewise of the patches that they become, in the object store.
        max_queued_requests: that each gateway keeps for this tier beyond what its replicas take;
            more are refused with 503.
        patch_cache_bytes: of a replica's own memory, for patches of pictures that may come again,
            by team unless ``decoder.prefix_cache: shared``; 0 keeps none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    formats: tuple[Format, ...] = ("jpeg", "png", "webp", "gif")
    max_picture_bytes: int = Field(10 * 2**20, ge=64)
    max_picture_pixels: int = Field(36_000_000, ge=256)
    min_picture_side: int = Field(1, ge=1)
    max_picture_tokens: int | None = Field(None, ge=LEAST_TOKENS)
    max_request_picture_tokens: int | None = Field(None, ge=LEAST_TOKENS)
    max_frames: int = Field(32, ge=1)
    documents: Documents = Documents()
    workers: int = Field(2, ge=1)
    picture_timeout_s: float = Field(10.0, gt=0)
    worker_memory_bytes: int = Field(2**30, ge=2**26)
    worker_tasks: int = Field(2000, ge=1)
    sandbox: Literal["required", "preferred"] = "required"
    threads: int = Field(1, ge=1)
    max_pictures_in_hand: int = Field(64, ge=1)
    max_bytes_in_hand: int = Field(128 * 2**20, ge=64)
    max_patch_bytes_in_hand: int = Field(192 * 2**20, ge=2**20)
    max_queued_requests: int = Field(256, ge=1)
    patch_cache_bytes: int = Field(128 * 2**20, ge=0)
    num_cpus: float = Field(1.0, gt=0)
    max_ongoing_requests: int = Field(32, ge=1)
    fetch: Fetching = Fetching()
    autoscaling: Autoscaling = Autoscaling()

    @field_validator("formats")
    @classmethod
    def _readable(cls, formats: tuple[Format, ...]) -> tuple[Format, ...]:
        if not formats:
            raise ValueError("must name at least one format")
        if "heif" in formats and find_spec("pillow_heif") is None:
            raise ValueError("heif needs pillow-heif: pip install 'pixtral-serve[heif]'")
        return formats

    @property
    def max_file_bytes(self) -> int:
        """Of whatever is decoded or drawn."""
        documents = self.documents
        return max(self.max_picture_bytes, documents.max_bytes if documents.enabled else 0)

    @property
    def rules(self) -> DecodeRules:
        return DecodeRules(
            formats=self.formats,
            max_pixels=self.max_picture_pixels,
            min_side=self.min_picture_side,
            max_frames=self.max_frames,
            max_pages=self.documents.max_pages if self.documents.enabled else 0,
            max_patches=_MOST_PATCHES,
        )
