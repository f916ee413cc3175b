"""One question answered by the ranks of one group, without a server.

``prepare`` reads and checks everything that can be checked without a weight; ``run_rank`` is the
life of one rank's process, of which rank 0 also encodes the pictures and runs the engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image as Pillow

from shards.config import ModelConfig, read_model_config
from shards.conversation import Conversation, Image, Message, Text
from shards.detokenizer import TextStream, Vocabulary
from shards.engine import Engine
from shards.errors import ModelConfigError, PlanError, RequestError
from shards.generation import Generation
from shards.limits import Limits
from shards.pixels import content_hash, patches, upright_rgb
from shards.plan import check_cut, kv_bytes_per_token, rank_parameters
from shards.request import Delta, GenerationRequest, Picture, Sampling
from shards.scheduler import Scheduler
from shards.step import Runner
from shards.tokenizer import Tokenizer

if TYPE_CHECKING:
    import torch

    from shards.comm import Communicator

BLOCK_SIZE = 16
STEP_TOKENS = 512
# A dead rank is noticed by the parent process; this only bounds how far apart ranks may load.
GROUP_TIMEOUT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where the model runs."""

    folder: Path
    ranks: int
    device: Literal["cpu", "cuda"]
    dtype: Literal["float32", "bfloat16"]
    threads: int

    @property
    def value_bytes(self) -> int:
        return 4 if self.dtype == "float32" else 2


@dataclass(frozen=True, slots=True)
class Job:
    """A question, tokenised, and what is needed to answer it.

    ``patches``: per picture float32 [grid.patches, channels * patch * patch].
    """

    place: Place
    config: ModelConfig
    vocabulary: Vocabulary
    request: GenerationRequest
    patches: tuple[np.ndarray, ...]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Answer:
    """One choice."""

    text: str
    finish_reason: str
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was answered and how fast.

    ``tokens_per_s`` and ``weights_gb_per_s`` (1e9 bytes of weights read by all ranks) are of the
    steps after the first token; 0 when there were none.
    """

    choices: tuple[Answer, ...]
    prompt_tokens: int
    first_token_s: float
    tokens_per_s: float
    weights_gb_per_s: float

    def __str__(self) -> str:
        tokens = sum(choice.completion_tokens for choice in self.choices)
        return (
            f"{self.prompt_tokens} tokens in, {tokens} out; first after {self.first_token_s:.2f} s,"
            f" then {self.tokens_per_s:.1f} tokens/s, {self.weights_gb_per_s:.2f} GB/s of weights"
        )


def prepare(place: Place, question: str, images: list[Path], sampling: Sampling) -> Job:
    """Raises ShardsError: the model cannot be run so, a picture not read, the prompt too long."""
    if not place.folder.is_dir():
        raise ModelConfigError(f"{place.folder} is not a folder")
    config = read_model_config(place.folder)
    check_cut(config, place.ranks)
    tokenizer = Tokenizer.from_folder(place.folder)
    tokenizer.require_model(config)
    pictures = [_read_picture(file) for file in images]
    content: list[Text | Image] = [Image(index) for index in range(len(pictures))]
    prompt = tokenizer.encode(
        Conversation((Message("user", (*content, Text(question))),)),
        [picture.size for picture in pictures],
    )
    encodable = [patches(pictures[index]) for index in prompt.picture_order]
    shown = tuple(Picture(grid, content_hash(grid, values)) for grid, values in encodable)
    request = GenerationRequest("offline", prompt.token_ids, sampling, shown)
    limits = _limits(request, config)
    Scheduler(limits).add(Generation(request, block_size=BLOCK_SIZE))  # refuses what is too long
    return Job(
        place,
        config,
        tokenizer.vocabulary,
        request,
        tuple(values for _, values in encodable),
        limits,
    )


def run_rank(rank: int, job: Job, rendezvous: str, say: Callable[[str], None]) -> Report | None:
    """Play one rank's part.

    Args:
        rendezvous: ``file://`` of a file that does not exist yet, the same for all ranks.
        say: takes the text of choice 0 as it comes.

    Returns:
        the report, on rank 0.

    Raises:
        ShardsError: the weights are not the model's, or another rank was lost.
    """
    import torch

    from shards.comm import ProcessGroup, SingleRank
    from shards.lockstep import Leader, follow
    from shards.runner import ModelRunner

    place = job.place
    if place.device == "cuda" and not torch.cuda.is_available():
        raise PlanError(f"--device cuda: torch {torch.__version__} finds no CUDA device here")
    torch.set_num_threads(place.threads)
    device = torch.device("cpu" if place.device == "cpu" else f"cuda:{rank}")
    comm: Communicator = SingleRank()
    if place.ranks > 1:
        backend: Literal["gloo", "nccl"] = "gloo" if place.device == "cpu" else "nccl"
        comm = ProcessGroup(rank, place.ranks, rendezvous, backend, device, GROUP_TIMEOUT_S)
    token_bytes = kv_bytes_per_token(job.config, place.ranks, place.value_bytes)
    runner = ModelRunner.load(
        place.folder,
        comm,
        device=device,
        dtype=place.dtype,
        block_size=BLOCK_SIZE,
        kv_cache_bytes=job.limits.num_blocks * BLOCK_SIZE * token_bytes,
    )
    if rank > 0:
        follow(runner, comm)
        return None
    leader = Leader(runner, comm)
    report = _answer(job, leader, _features(job, device), say)
    leader.close()
    return report


def _limits(request: GenerationRequest, config: ModelConfig) -> Limits:
    """A cache for this request and no other."""
    choices = request.sampling.n
    return Limits(
        num_blocks=Generation(request, block_size=BLOCK_SIZE).blocks_owed,
        block_size=BLOCK_SIZE,
        max_context_tokens=config.text.max_positions,
        max_batch_sequences=choices,
        max_step_tokens=max(STEP_TOKENS, choices),
        max_waiting=1,
    )


def _read_picture(file: Path) -> Pillow.Image:
    try:
        with Pillow.open(file) as image:
            return upright_rgb(image)
    except (OSError, ValueError, Pillow.DecompressionBombError) as error:
        raise RequestError("image", f"{file} cannot be read as a picture ({error})") from error


def _features(job: Job, device: torch.device) -> list[np.ndarray]:
    """Per picture [patches, vision hidden]; bfloat16 as its bits, which numpy has no name for."""
    import torch

    from shards.vision_model import VisionEncoder

    if not job.patches:
        return []
    encoder = VisionEncoder.load(job.place.folder, device=device, dtype=job.place.dtype)
    features = []
    for picture, rows in zip(job.request.pictures, job.patches, strict=True):
        encoded = encoder.encode(rows, [picture.grid]).cpu()
        if encoded.dtype == torch.bfloat16:
            encoded = encoded.view(torch.uint16)
        features.append(encoded.numpy())
    return features


def _answer(
    job: Job, runner: Runner, features: list[np.ndarray], say: Callable[[str], None]
) -> Report:
    engine = Engine(runner, vocabulary=job.vocabulary, **asdict(job.limits))
    sampling = job.request.sampling
    streams = [TextStream(job.vocabulary, sampling.stop) for _ in range(sampling.n)]
    texts = [""] * sampling.n
    last: dict[int, Delta] = {}
    started = time.monotonic()
    first_at, first_tokens, first_steps = started, 0, 0
    engine.add(job.request, features)
    while engine.has_work:
        for delta in engine.step():
            text = streams[delta.choice].push(delta.token_ids)
            if delta.finish_reason is not None:
                text += streams[delta.choice].finish()
            texts[delta.choice] += text
            last[delta.choice] = delta
            if delta.choice == 0:
                say(text)
        stats = engine.stats()
        if not first_tokens and stats.generated_tokens_total:
            first_at = time.monotonic()
            first_tokens, first_steps = stats.generated_tokens_total, stats.steps_total
    stats, elapsed = engine.stats(), time.monotonic() - first_at
    return Report(
        choices=tuple(
            Answer(text, str(last[index].finish_reason), last[index].completion_tokens)
            for index, text in enumerate(texts)
        ),
        prompt_tokens=len(job.request.prompt),
        first_token_s=first_at - started,
        tokens_per_s=(stats.generated_tokens_total - first_tokens) / elapsed,
        weights_gb_per_s=(stats.steps_total - first_steps) * _step_bytes(job) / elapsed / 1e9,
    )


def _step_bytes(job: Job) -> int:
    """Bytes of weights that all ranks together read to decode one token of each sequence."""
    text, ranks = job.config.text, job.place.ranks
    # Of the two vocabulary tables only the head is read whole.
    each = rank_parameters(job.config, ranks).decoder - text.vocab_size * text.dim // ranks
    return each * ranks * job.place.value_bytes
