"""What the admin routes need of the accounts; ``accounting/office.py`` keeps the promise."""

from __future__ import annotations

from typing import Protocol

from serve_app.accounting.database import Database
from serve_app.accounting.directory import Directory
from serve_app.accounting.price_book import PriceBook


class Office(Protocol):
    @property
    def database(self) -> Database: ...

    @property
    def directory(self) -> Directory: ...

    @property
    def prices(self) -> PriceBook: ...
