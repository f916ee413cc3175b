"""Where weights come from: a bucket of Google, Amazon or Microsoft, or a folder.

    gs://bucket/prefix      s3://bucket/prefix      az://account/container/prefix      file:///path

Credentials are the node's own, found by the store's library: workload identity on GKE, IRSA or pod
identity on EKS, workload identity on AKS, else the usual environment variables (AWS_*, GOOGLE_*,
AZURE_*). None is ever an option here, where it would end up in a process list.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

from ops.problem import Problem

if TYPE_CHECKING:
    from obstore.store import ObjectStore

_FORMS = "gs://bucket/prefix, s3://bucket/prefix, az://account/container/prefix or file:///path"


class Source(Protocol):
    """Files by name. All raise Problem in one line that says which file and why."""

    @property
    def uri(self) -> str: ...

    def size(self, name: str) -> int:
        """In bytes."""
        ...

    def read(self, name: str, start: int, length: int) -> memoryview: ...


class Store:
    """A ``Source`` over obstore, which tries again for some minutes before it gives up."""

    def __init__(self, uri: str, store: ObjectStore) -> None:
        self.uri = uri.rstrip("/")
        self._store = store

    def size(self, name: str) -> int:
        import obstore

        with self._told(name):
            return obstore.head(self._store, name)["size"]

    def read(self, name: str, start: int, length: int) -> memoryview:
        import obstore

        if not length:
            return memoryview(b"")
        with self._told(name):
            content = memoryview(obstore.get_range(self._store, name, start=start, length=length))
        if len(content) != length:
            raise Problem(f"{self.uri}/{name} ends at byte {start + len(content)}: it was changed")
        return content

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        from obstore.exceptions import BaseError

        try:
            yield
        except FileNotFoundError:
            raise Problem(f"there is no {self.uri}/{name}") from None
        except (BaseError, OSError, ValueError) as error:
            reason = " ".join(str(error).split("\n\n")[0].split())
            raise Problem(f"{self.uri}/{name} cannot be read: {reason[:300]}") from error


def open_source(uri: str) -> Store:
    """Nothing is asked of the network yet.

    Raises:
        Problem: another scheme, or no bucket named.
    """
    from obstore.store import AzureStore, GCSStore, LocalStore, S3Store

    parts = urlsplit(uri)
    host, path = parts.netloc, unquote(parts.path).strip("/")
    if parts.scheme == "file" and not host and path:
        return Store(uri, LocalStore(Path("/", path)))
    if parts.query or parts.fragment or "@" in host or not host:
        raise Problem(f"{uri} is none of {_FORMS}")
    if parts.scheme == "s3":
        return Store(uri, S3Store(host, prefix=path or None))
    if parts.scheme == "gs":
        return Store(uri, GCSStore(host, prefix=path or None))
    container, _, prefix = path.partition("/")
    if parts.scheme == "az" and container:
        return Store(uri, AzureStore(container, account_name=host, prefix=prefix or None))
    raise Problem(f"{uri} is none of {_FORMS}")
