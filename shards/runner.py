"""One rank's model: runs step plans on its share of the weights and its share of the KV cache.

Every rank of a group makes the same calls in the same order; who tells them to is not known here.
Nothing here decides what runs next, and nothing is tokenised. A step is apply → forward → sample →
accept: what the plan says of the batch, the logits, the draws, and what counts of them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from shards.attention import PagedCache, StepLayout
from shards.batch import Batch, Work
from shards.checkpoint import load_weights
from shards.comm import Communicator
from shards.config import ModelConfig, read_model_config
from shards.cuda_graphs import DecodeGraphs
from shards.errors import RequestError
from shards.kernels import KernelsName
from shards.layers import DtypeName, Placement, compute_dtype, model_parts
from shards.plan import check_cut, kv_blocks, kv_bytes_per_token
from shards.request import TokenLogprob
from shards.sampler import sample
from shards.step import Drawn, PictureKey, StepPlan, nothing
from shards.text_model import Decoder


class ModelRunner:
    """Implements ``shards.step.Runner`` for one rank.

    Attributes:
        batch: the running sequences, the same on all ranks.
        num_blocks, block_size: of the KV cache, the same on all ranks.
        kv_bytes_per_token: on this rank.
        weight_bytes_read: from disk, while loading.
    """

    def __init__(
        self,
        config: ModelConfig,
        model: Decoder,
        place: Placement,
        block_size: int,
        cache_bytes: int,
        graphs: bool = True,
    ) -> None:
        self.config = config
        self.model = model
        self.place = place
        self.block_size = block_size
        self.batch = Batch(config.image_token_id)
        self.weight_bytes_read = 0
        self.kv_bytes_per_token = kv_bytes_per_token(config, place.comm.size, place.dtype.itemsize)
        blocks = torch.tensor(
            [kv_blocks(cache_bytes, block_size, self.kv_bytes_per_token)], device=place.device
        )
        # The least of all ranks: a block id means the same block everywhere.
        self.num_blocks = int(place.comm.all_reduce(blocks, "min").item())
        self._caches = [
            PagedCache.empty(
                self.num_blocks,
                block_size,
                place.share(config.text.kv_heads),
                config.text.head_dim,
                place.device,
                place.dtype,
            )
            for _ in range(config.text.layers)
        ]
        self._graphs = (
            DecodeGraphs(model, self._caches) if graphs and place.device.type == "cuda" else None
        )
        self._pictures: dict[PictureKey, Tensor] = {}

    @classmethod
    def load(
        cls,
        folder: Path,
        comm: Communicator,
        *,
        device: torch.device,
        dtype: DtypeName | torch.dtype,
        block_size: int,
        kv_cache_bytes: int,
        kernels: KernelsName = "auto",
        graphs: bool = True,
    ) -> ModelRunner:
        """Read this rank's slices of the model in ``folder`` and make room for its KV cache.

        Args:
            kv_cache_bytes: for this rank's keys and values, all layers together.
            kernels: what computes between the all-reduces (see ``kernels_for``).
            graphs: whether a GPU replays decode steps as CUDA graphs.

        Raises:
            ModelConfigError: the model cannot be computed.
            KernelError: ``kernels`` insists on what cannot be had here.
            PlanError: it cannot be cut so, or the cache holds no block.
            CheckpointError: the weights are not those of the config.
        """
        config = read_model_config(folder)
        check_cut(config, comm.size)
        place = Placement(comm, device, compute_dtype(dtype, device), kernels)
        model = Decoder(config, place).eval()
        weight_bytes_read = load_weights(model_parts(model), folder, config.layout)
        runner = cls(config, model, place, block_size, kv_cache_bytes, graphs)
        runner.weight_bytes_read = weight_bytes_read
        return runner

    def add_picture(self, key: PictureKey, features: np.ndarray) -> None:
        """Hold vision features [patches, vision hidden] (before the projector) until dropped.

        Args:
            features: floating point, or uint16 holding the bits of bfloat16 (numpy has none).

        Raises:
            RequestError: they are not of that width.
        """
        width = self.config.vision.hidden_size
        if features.ndim != 2 or features.shape[1] != width:
            raise RequestError(
                "pictures", f"features must be [patches, {width}], not {list(features.shape)}"
            )
        # Copied: the array may be read-only memory that its owner takes back.
        rows = torch.tensor(features)
        if features.dtype == np.uint16:
            rows = rows.view(torch.bfloat16)
        self._pictures[key] = rows.to(self.place.device, self.place.dtype)

    def drop_picture(self, key: PictureKey) -> None:
        """Forget a picture; unknown keys are fine."""
        self._pictures.pop(key, None)

    @torch.inference_mode()
    def run(self, plan: StepPlan, meanwhile: Callable[[], None] = nothing) -> Sequence[Drawn]:
        """Compute a step and draw, the same tokens on every rank.

        Args:
            meanwhile: called before computing on the CPU, which is busy then; on a GPU when it has
                its work.

        Raises:
            PlanViolationError, RequestError: the plan does not fit the batch, or pictures and
                [IMG] tokens do not agree; before anything is computed, so on every rank alike.
            GroupError: a peer died or did not answer in time.
        """
        works = self.batch.apply(plan)
        asynchronous = self.place.device.type == "cuda"
        if not asynchronous:
            meanwhile()
        logits = self.forward(works) if works else None
        if asynchronous:
            meanwhile()
        specs = [spec for work in works for spec in work.samples]
        drawn: list[TokenLogprob] = []
        if logits is not None and specs:
            drawn = sample(logits, specs, self.vocab_start, self.place.comm)
        return self.batch.accept(works, drawn)

    @torch.inference_mode()
    def forward(self, works: Sequence[Work]) -> Tensor:
        """This rank's float32 logits [S, vocabulary / ranks] of the S draws of ``works``."""
        device = self.place.device
        # Laid out on the host, then sent: the device is never waited for.
        token_ids = torch.tensor([token for work in works for token in work.token_ids])
        patch_rows = self._patch_rows(works)
        features = self._features(works, len(patch_rows))
        layout = StepLayout.of(works, self.block_size, device)
        drawn_from = _drawn_from(works)
        decodes = features is None and len(drawn_from) == len(token_ids)
        if self._graphs is not None and decodes and self._graphs.covers(layout):
            return self._graphs.logits(token_ids.to(device), layout)
        hidden = self.model.embed(token_ids.to(device), patch_rows.to(device), features)
        hidden = self.model(hidden, layout, self._caches)
        if len(drawn_from) < len(hidden):
            hidden = hidden[torch.tensor(drawn_from, dtype=torch.int64).to(device)]
        return self.model.head(hidden)

    @property
    def vocab_start(self) -> int:
        """Vocabulary id of this rank's first logit."""
        return self.place.comm.rank * self.place.share(self.config.text.vocab_size)

    def close(self) -> None:
        """Leave the group and let the memory go."""
        self._caches.clear()
        self._pictures.clear()
        self.place.comm.close()

    def _patch_rows(self, works: Sequence[Work]) -> Tensor:
        """Rows of the step [N] that hold an [IMG] id which is not a draft."""
        image, rows, first = self.config.image_token_id, [], 0
        for work in works:
            known = work.token_ids[: work.count - len(work.drafts)]
            if image in known:
                rows += [first + place for place, token in enumerate(known) if token == image]
            first += work.count
        return torch.tensor(rows, dtype=torch.int64)

    def _features(self, works: Sequence[Work], count: int) -> Tensor | None:
        """Feature rows of the step's [IMG] positions [count, vision hidden]; None without any."""
        wanted = [picture for work in works for picture in work.pictures]
        for key in (picture.key for picture in wanted):
            if key not in self._pictures:
                raise RequestError(
                    "pictures", f"picture {key.index} of {key.request_id} is not held"
                )
        rows = [self._pictures[picture.key][picture.start : picture.stop] for picture in wanted]
        given = sum(map(len, rows))
        if given != count:
            raise RequestError(
                "pictures", f"{count} [IMG] tokens in the step, but {given} feature rows for them"
            )
        return torch.cat(rows) if rows else None


def _drawn_from(works: Sequence[Work]) -> list[int]:
    """The rows of a step that tokens are drawn from, in the order of the draws."""
    rows: list[int] = []
    stop = 0
    for work in works:
        stop += work.count
        rows.extend(range(stop - len(work.samples), stop))
    return rows
