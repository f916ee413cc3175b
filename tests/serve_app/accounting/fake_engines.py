"""The engine as the sweeper sees it: groups with journals, which end requests when asked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence

from serve_app.errors import Overloaded
from serve_app.messages import JournalPage
from shards.tally import Tally

PAGE = 3


class FakeEngines:
    """Offsets are numbers of entries.

    Attributes to set from a test:
        deaf: a group does not answer ``abort``.
        mute: journals cannot be read.
        last_words: tallies that ``abort`` makes a group write, by request.
        on_journal: awaited before journals are read.

    Attributes to look at: ``aborted`` ids, in order.
    """

    def __init__(self) -> None:
        self.journals: dict[str, list[Tally]] = {}
        self.deaf = False
        self.mute = False
        self.last_words: dict[str, list[Tally]] = {}
        self.aborted: list[str] = []
        self.on_journal: Callable[[], Awaitable[None]] = _nothing

    def compute(self, *tallies: Tally, group: str = "group-1") -> None:
        self.journals.setdefault(group, []).extend(tallies)

    async def abort(self, request_ids: Sequence[str]) -> None:
        self.aborted += request_ids
        for request_id in request_ids:
            self.compute(*self.last_words.pop(request_id, ()))
        if self.deaf:
            raise Overloaded("a group does not answer")

    async def journal(self, bookmarks: Mapping[str, int]) -> tuple[JournalPage, ...]:
        await self.on_journal()
        if self.mute:
            raise Overloaded("a group does not answer")
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


async def _nothing() -> None:
    pass
