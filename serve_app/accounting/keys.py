"""API keys as strings: made, recognised offline, and digested for the database.

    sk-pixtral-k3v7…qa_8fHx…2Qd1Bz9Kp
    prefix     │       │      └── 6 of checksum: a typo costs no query
               │       └───────── 32 of secret, 190 random bits
               └───────────────── 12 of public id: what lists, logs and the audit show

The database keeps the public id, by which a key is looked up, and HMAC-SHA256 of the whole key
under a pepper that lies elsewhere. Keys made outside (``pixtral up``'s first one) have no public
id in them: theirs is derived, under the pepper too, so that even a weak one cannot be guessed from
it. Whether a key is known, expired or revoked is not known here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import string
import zlib
from pathlib import Path

from serve_app.config import ConfigError

PREFIX = "sk-pixtral-"
MIN_PEPPER_BYTES = 32
_IDS = "abcdefghijklmnopqrstuvwxyz234567"
_LETTERS = string.digits + string.ascii_letters
_ID_CHARS, _SECRET_CHARS, _CHECKSUM_CHARS = 12, 32, 6
_OURS = re.compile(
    rf"{PREFIX}([{_IDS}]{{{_ID_CHARS}}})_[0-9A-Za-z]{{{_SECRET_CHARS + _CHECKSUM_CHARS}}}"
)
# Of any other length than ours, so that one of ours is never taken for one, however mistyped.
_OUR_CHARS = _ID_CHARS + 1 + _SECRET_CHARS + _CHECKSUM_CHARS
_IMPORTED = re.compile(rf"{PREFIX}(?!.{{{_OUR_CHARS}}}$)[0-9A-Za-z_-]{{16,128}}")


def new_token() -> str:
    """A key to be shown once."""
    public_id = "".join(secrets.choice(_IDS) for _ in range(_ID_CHARS))
    secret = "".join(secrets.choice(_LETTERS) for _ in range(_SECRET_CHARS))
    body = f"{PREFIX}{public_id}_{secret}"
    return body + _checksum(body)


class KeyDigester:
    """Public ids and digests of keys under one pepper."""

    def __init__(self, pepper: bytes) -> None:
        if len(pepper) < MIN_PEPPER_BYTES:
            raise ConfigError(f"the pepper has {len(pepper)} bytes; it needs {MIN_PEPPER_BYTES}")
        self._pepper = pepper

    def digest(self, token: str) -> bytes:
        """32 bytes; the token may be anything that a client sent."""
        return self._hmac("key", token)

    def public_id(self, token: str) -> str | None:
        """By which the key is looked up; None for what can be no key, a mistyped one too."""
        ours = _OURS.fullmatch(token)
        if ours is not None:
            body, checksum = token[:-_CHECKSUM_CHARS], token[-_CHECKSUM_CHARS:]
            return ours.group(1) if checksum == _checksum(body) else None
        if _IMPORTED.fullmatch(token) is None:
            return None
        return self._hmac("public id", token)[:8].hex()

    def _hmac(self, purpose: str, token: str) -> bytes:
        message = f"{purpose}\0{token}".encode("utf-8", "surrogatepass")
        return hmac.new(self._pepper, message, hashlib.sha256).digest()


def read_pepper(file: Path) -> bytes:
    """The pepper, whole.

    Raises:
        ConfigError: it cannot be read, is too short, or lies open to every user of the machine. Its
            group may read it: that is how Kubernetes mounts a secret.
    """
    key = f"accounting.pepper_file: {file}"
    try:
        mode = file.stat().st_mode
        pepper = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{key}: {error.strerror}") from error
    if mode & stat.S_IRWXO:
        raise ConfigError(f"{key} is open to every user (mode {mode & 0o777:o}); chmod it to 600")
    if len(pepper) < MIN_PEPPER_BYTES:
        raise ConfigError(f"{key} holds {len(pepper)} bytes; it needs {MIN_PEPPER_BYTES} or more")
    return pepper


def ensure_pepper(file: Path) -> bytes:
    """The pepper in ``file``, made at the first call. Two at once end with the same one.

    Raises:
        ConfigError: it cannot be made, or is unfit.
    """
    if not file.exists():
        try:
            _write_once(file, secrets.token_bytes(MIN_PEPPER_BYTES))
        except OSError as error:
            raise ConfigError(f"accounting.pepper_file: {file}: {error.strerror}") from error
    return read_pepper(file)


def _write_once(file: Path, content: bytes) -> None:
    """Whole, never over another's, and durably: losing the pepper makes every key worthless."""
    draft = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            os.link(draft, file)
        except FileExistsError:
            return
        folder = os.open(file.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        draft.unlink(missing_ok=True)


def _checksum(body: str) -> str:
    rest = zlib.crc32(body.encode())
    digits = []
    for _ in range(_CHECKSUM_CHARS):
        rest, digit = divmod(rest, len(_LETTERS))
        digits.append(_LETTERS[digit])
    return "".join(digits)
