"""The bundled model: a small Pixtral that sees simple drawn pictures.

    python -m ops.nano DIR            writes it (a second, 35 MB)
    python -m ops.nano.train --help   how it was made

``write_checkpoint`` writes random ones of any shape, for tests and measurements.
"""

from ops.nano.checkpoint import NANO, SEED, write_checkpoint
from ops.nano.folder import CARD, MANIFEST, ensure
from ops.nano.shape import TRAINED

__all__ = ["CARD", "MANIFEST", "NANO", "SEED", "TRAINED", "ensure", "write_checkpoint"]
