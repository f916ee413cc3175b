"""Write the bundled model: ``python -m ops.nano DIR``."""

from __future__ import annotations

import argparse
from pathlib import Path

from ops.nano.folder import ensure


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m ops.nano", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the model is to lie")
    print(ensure(parser.parse_args().folder))


if __name__ == "__main__":
    main()
