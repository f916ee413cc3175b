"""What a gateway's pod does before it starts: bring the ledger's schema up to date.

    python -m ops.deploy.accounts /etc/pixtral/config.yaml

Every gateway runs it; two at once wait for each other, and a schema that is current is left alone.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ops.problem import Problem
from serve_app.config import Config, ConfigError, load_config


def prepare_accounts(config: Config) -> str:
    """Migrate, and import the first key; says what was done.

    Raises:
        Problem, ConfigError, LedgerUnavailable: the accounts cannot be used.
    """
    # Here, as it imports what would slow down every other command.
    from serve_app.accounting.office import prepare
    from serve_app.errors import Conflict

    file = config.gateway.api_key_file
    if file is None:
        raise Problem("gateway.api_key_file: names no file")
    try:
        key = file.read_text().strip()
    except OSError as error:
        raise Problem(f"gateway.api_key_file: {file}: {error.strerror}") from error
    try:
        prepare(config, key)
    except Conflict:
        # As it should be, once there are admins of their own.
        return "the tables are up to date; the first key was revoked and stays so"
    return "the tables are up to date, the first key is known"


def main(arguments: list[str]) -> int:
    from serve_app.errors import ApiError

    try:
        (file,) = arguments
        print(prepare_accounts(load_config(Path(file))))
    except (Problem, ConfigError) as error:
        print(error, file=sys.stderr)
        return 1
    except ApiError as error:
        print(f"the accounts cannot be used: {error.message}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
