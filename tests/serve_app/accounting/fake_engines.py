"""The engine as the sweeper sees it: groups with journals, which end requests when asked."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from serve_app.errors import Overloaded
from serve_app.messages import JournalPage
from shards.tally import Tally

PAGE = 3


class FakeEngines:
    """Offsets are numbers of entries.

    Attributes to set from a test:
        silent: groups that answer neither ``abort`` nor whoever reads their journal.
        last_words: tallies that ``abort`` makes a group write, by request.

    Attributes to look at: ``aborted`` ids, in order.
    """

    def __init__(self) -> None:
        self.journals: dict[str, list[Tally]] = {}
        self.silent: set[str] = set()
        self.last_words: dict[str, list[Tally]] = {}
        self.aborted: list[str] = []
        self.on_journal: Callable[[], None] = lambda: None

    def compute(self, *tallies: Tally, group: str = "group-1") -> None:
        self.journals.setdefault(group, []).extend(tallies)

    async def abort(self, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self.compute(*self.last_words.pop(request_id, ()))
        if self.silent:
            raise Overloaded(f"{sorted(self.silent)} do not answer")

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        self.on_journal()
        if self.silent:
            raise Overloaded(f"{sorted(self.silent)} do not answer")
        pages = []
        for group, entries in self.journals.items():
            start = bookmarks.get(group, 0)
            read = entries[start : start + PAGE]
            if read:
                latest = {(entry.request_id, entry.attempt, entry.choice): entry for entry in read}
                end = start + len(read)
                more = end < len(entries)
                pages.append(JournalPage(group, end, tuple(latest.values()), more=more))
        return tuple(pages)
