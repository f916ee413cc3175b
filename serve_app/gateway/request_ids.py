"""Our own request ids: UUIDv7, so that they sort by time and never collide across replicas."""

from __future__ import annotations

import uuid_utils


def new_request_id() -> str:
    return str(uuid_utils.uuid7())
