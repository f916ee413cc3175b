"""A small Pixtral of random weights: the shape of Large, its tokenizer, and no training at all.

It lets the whole system run on a laptop without a download. What it answers is noise.

    python -m ops.nano DIR        writes it (a second or two, 45 MB)
"""

from ops.nano.checkpoint import NANO, SEED, write_checkpoint
from ops.nano.folder import CARD, MANIFEST, ensure

__all__ = ["CARD", "MANIFEST", "NANO", "SEED", "ensure", "write_checkpoint"]
