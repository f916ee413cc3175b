"""A worker process: decodes strangers' files and cuts patches, and can do nothing else.

Started by ``child.py`` as a script, in an empty environment, with a socket and two pieces of shared
memory. Imports everything, decodes one picture of each format, gives up its rights, and only then
takes work. Files come in the one piece of memory; patches go out in the other, a picture at a time.
"""

from __future__ import annotations

import json
import mmap
import os
import pickle
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

    from serve_app.preprocess.wire import Cut, Look, Reply, Start
    from serve_app.preprocess.wish import Sight, Wish

_OUT_OF_MEMORY = 3
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4
_KEPT_BYTES = 256 * 2**20


def main(path: str, socket: str, files: str, patches: str) -> None:
    """``path``: modules are found there, as JSON. The others are open descriptors."""
    sys.path[:] = json.loads(path)
    # Read when the libraries are imported: a thread is a system call that is refused later.
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", OPENCV_LOG_LEVEL="SILENT")
    from serve_app.preprocess.wire import MESSAGE_BYTES, Failed, Ready, packed

    channel = int(socket)
    try:
        start: Start = pickle.loads(os.read(channel, MESSAGE_BYTES))
        work = Work(channel, int(files), int(patches), start)
        work.warm_up()
        from serve_app.preprocess.sandbox import enter

        ready = Ready(enter(start.confinement))
    except Exception as error:
        os.write(channel, packed(Failed(type(error).__name__)))
        raise
    os.write(channel, packed(ready))
    while task := os.read(channel, MESSAGE_BYTES):
        work.do(pickle.loads(task))


class Work:
    """``files`` and ``patches`` are descriptors of shared memory."""

    def __init__(self, channel: int, files: int, patches: int, start: Start) -> None:
        import cv2
        import numpy as np

        from shards.pillow_memory import keep_pictures_whole
        from shards.pixel_kernels import NativePixels, NumpyPixels

        cv2.setNumThreads(1)
        keep_pictures_whole(start.rules.max_pixels)
        keep_freed_memory()
        self._channel = channel
        self._rules = start.rules
        path = start.kernels
        self._kernels = NumpyPixels() if path is None else NativePixels(Path(path))
        self._file = mmap.mmap(files, 0, access=mmap.ACCESS_READ)
        self._patches = np.frombuffer(mmap.mmap(patches, 0), np.float32)
        # The mappings have their own.
        os.close(files)
        os.close(patches)

    def warm_up(self) -> None:
        """Nothing can be imported later, as no file can be opened then."""
        from serve_app.preprocess import warmth

        for data, wish in warmth.samples(self._rules):
            sight = self._look(data, wish)
            for image in self._pictures(data, wish, sight, [1024] * len(sight.sizes)):
                self._fill(image, 1024)

    def do(self, task: Look | Cut) -> None:
        """Answers, whatever happens; ends the process where memory ran out."""
        from serve_app.errors import InvalidRequest
        from serve_app.preprocess.wire import Cut, Failed, Refused, Seen

        data = self._file[: task.length]
        try:
            if isinstance(task, Cut):
                self._cut(data, task)
            else:
                self._say(Seen(self._look(data, task.wish)))
        except InvalidRequest as refusal:
            self._say(Refused(refusal.message, refusal.code))
        except MemoryError:
            self._say(Failed("memory"))
            # Libraries that met the limit half way are not to be trusted further.
            os._exit(_OUT_OF_MEMORY)
        except Exception as error:
            self._say(Failed(type(error).__name__))

    def _cut(self, data: bytes, task: Cut) -> None:
        from serve_app.preprocess.wire import GO_ON, Done, OneCut

        sight = self._look(data, task.wish)
        images = self._pictures(data, task.wish, sight, task.max_sides)
        for image, max_side in zip(images, task.max_sides, strict=True):
            self._say(OneCut(self._fill(image, max_side)))
            if os.read(self._channel, len(GO_ON)) != GO_ON:
                os._exit(0)
        self._say(Done())

    def _look(self, data: bytes, wish: Wish) -> Sight:
        from serve_app.preprocess.decode import look_at_frames
        from serve_app.preprocess.wish import Pages

        if isinstance(wish, Pages):
            from serve_app.preprocess.documents import look_at_pages

            return look_at_pages(data, wish, self._rules.max_pages, "")
        return look_at_frames(data, wish, self._rules, "")

    def _pictures(
        self, data: bytes, wish: Wish, sight: Sight, max_sides: Any
    ) -> Iterator[Image.Image]:
        from serve_app.preprocess.decode import decoded_frames
        from serve_app.preprocess.wish import Pages

        if isinstance(wish, Pages):
            from serve_app.preprocess.documents import drawn_pages

            return drawn_pages(data, sight, max_sides, "")
        return decoded_frames(data, sight, self._rules, "")

    def _fill(self, image: Image.Image, max_side: int) -> Any:
        from shards.grid import patch_grid
        from shards.pixels import PATCH_VALUES, cut_patches

        grid = patch_grid(image.width, image.height, max_side)
        values = self._patches[: grid.patches * PATCH_VALUES]
        cut_patches(image, grid, values.reshape(grid.patches, PATCH_VALUES), self._kernels)
        return grid

    def _say(self, reply: Reply) -> None:
        from serve_app.preprocess.wire import packed

        os.write(self._channel, packed(reply))


def keep_freed_memory() -> None:
    """To have a large picture's pages zeroed anew for each copy of it costs as much as decoding.

    The next picture takes what the last one left, up to 256 MiB.
    """
    import ctypes

    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc's
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        libc.mallopt(_M_TOP_PAD, 2**24)


if __name__ == "__main__":
    main(*sys.argv[1:])
