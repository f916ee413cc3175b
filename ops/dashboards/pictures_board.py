"""Pictures, from upload to features: the preprocessing and vision tiers."""

from __future__ import annotations

from ops.dashboards import series
from ops.dashboards.board import (
    BYTES,
    COUNT,
    EVENTS_PER_SECOND,
    PATCHES_PER_SECOND,
    PICTURES_PER_SECOND,
    SECONDS,
    SHARE,
    Board,
    Panel,
    Section,
    graph,
    number,
)
from ops.dashboards.promql import observed, quantile, share, summed, total
from ops.dashboards.series import DECODER, FETCH, LEDGER_TOKENS, PREPROCESS, VISION


def pictures_board() -> Board:
    return Board(
        "pixtral-pictures",
        "Pixtral: pictures",
        "Decoding, resizing and encoding of pictures, and how long they wait.",
        (),
        (
            Section("Now", _now()),
            Section("Preprocessing", _preprocess()),
            Section("Pictures by address", _fetch()),
            Section("Vision", _vision()),
            Section("Between them: the object store", _store()),
        ),
    )


def _now() -> tuple[Panel, ...]:
    image = f'{LEDGER_TOKENS}{{kind=~"image|cached_image"}}'
    prompt = f'{LEDGER_TOKENS}{{kind!="output"}}'
    return (
        number("Decoded", "Pictures decoded.", PICTURES_PER_SECOND, total(PREPROCESS.pictures)),
        number("Encoded", "Pictures encoded.", PICTURES_PER_SECOND, total(VISION.pictures)),
        number("Patches", "Patches of 16 by 16 pixels.", PATCHES_PER_SECOND, total(VISION.patches)),
        number(
            "Waiting for vision",
            "Pictures that wait for a pass of the encoder.",
            COUNT,
            f"sum({VISION.waiting})",
        ),
        number(
            "Refused",
            "Requests refused while they were prepared: no picture, too large, not decodable.",
            EVENTS_PER_SECOND,
            total(PREPROCESS.refused),
        ),
        number(
            "Image tokens",
            "Their share of all prompt tokens ever booked.",
            SHARE,
            share(summed(image), summed(prompt)),
        ),
    )


def _preprocess() -> tuple[Panel, ...]:
    return (
        graph(
            "Preparing a request",
            "Decoding, resizing and tokenising.",
            SECONDS,
            *_quantiles(PREPROCESS.seconds),
        ),
        graph(
            "Wait for a thread",
            "Of one request, before it is prepared.",
            SECONDS,
            *_quantiles(PREPROCESS.queue_seconds),
        ),
        graph(
            "Requests prepared, refused and waiting",
            "Per second; waiting as a number.",
            COUNT,
            (observed(PREPROCESS.seconds), "prepared"),
            (total(PREPROCESS.refused), "refused"),
            (f"sum({PREPROCESS.waiting})", "waiting"),
        ),
    )


def _fetch() -> tuple[Panel, ...]:
    return (
        graph(
            "Addresses by outcome",
            "Per second. Blocked: they led to addresses that are never connected to, so somebody"
            " may be looking for a way in; the tier's log has the hosts.",
            PICTURES_PER_SECOND,
            (total(FETCH.fetches, "outcome"), "{{outcome}}"),
        ),
        graph(
            "Fetching a picture",
            "Redirects and waits included, whatever came of it.",
            SECONDS,
            *_quantiles(FETCH.seconds),
        ),
        graph(
            "On the way",
            "Requests that wait for their pictures' hosts.",
            COUNT,
            (f"sum({FETCH.fetching})", "requests"),
        ),
        graph(
            "Held",
            "Fetched pictures that wait or are decoded, of all replicas, within"
            " preprocess.fetch.max_held_bytes each.",
            BYTES,
            (f"sum({FETCH.held_bytes})", "held"),
            width=12,
        ),
        graph(
            "Fetched",
            "Bytes per second.",
            BYTES,
            (total(FETCH.bytes), "fetched"),
            width=12,
        ),
    )


def _vision() -> tuple[Panel, ...]:
    return (
        graph(
            "One pass of the encoder",
            "Many pictures of different sizes go through it packed together.",
            SECONDS,
            *_quantiles(VISION.seconds),
        ),
        graph(
            "Wait for a pass",
            "Of the oldest picture of each pass.",
            SECONDS,
            *_quantiles(VISION.queue_seconds),
        ),
        graph(
            "Pictures in a pass",
            "More is better, as long as the wait is short.",
            COUNT,
            *_quantiles(VISION.batch_pictures),
        ),
        graph(
            "Waiting",
            "Pictures and their patches that wait for a pass.",
            COUNT,
            (f"sum({VISION.waiting})", "pictures"),
            (f"sum({VISION.waiting_patches})", "patches"),
            width=12,
        ),
        graph(
            "Passes and pictures",
            "Per second.",
            EVENTS_PER_SECOND,
            (observed(VISION.seconds), "passes"),
            (total(VISION.pictures), "pictures"),
            width=12,
        ),
        graph(
            "Not encoded again",
            "Pictures per second whose features were kept from a turn before, or on their way. Of"
            " those that a decoder group had kept, the vision tier never heard.",
            PICTURES_PER_SECOND,
            (total(DECODER.kept_pictures), "kept by the group"),
            (total(VISION.known_pictures), "known to the vision tier"),
            (total(VISION.pictures), "encoded"),
            width=12,
        ),
        graph(
            "Features kept",
            "Of all vision replicas, within vision.feature_cache_bytes each.",
            BYTES,
            (f"sum({VISION.cached_bytes})", "kept"),
            width=12,
        ),
    )


def _store() -> tuple[Panel, ...]:
    node = "NodeAddress"
    return (
        graph(
            "Object store in use",
            "Pixels and features pass through it and leave it; a rising floor is a leak.",
            BYTES,
            (f"sum by ({node}) ({series.STORE_USED})", "{{NodeAddress}}"),
            alerts=("PixtralObjectStoreFilling",),
            width=12,
        ),
        graph(
            "Spilled to disk",
            "Objects for which the store had no room.",
            BYTES,
            (f"sum by ({node}) ({series.STORE_SPILLED}) or vector(0)", "{{NodeAddress}}"),
            alerts=("PixtralObjectStoreFilling",),
            width=12,
        ),
    )


def _quantiles(name: str) -> tuple[tuple[str, str], ...]:
    return tuple((quantile(of, name, window="5m"), f"p{of * 100:g}") for of in (0.5, 0.95, 0.99))
