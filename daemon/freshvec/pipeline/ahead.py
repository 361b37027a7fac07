"""The next page of a walk, read while this one is tokenised."""

import math
from concurrent.futures import Executor, Future

from freshvec.pipeline.ledger import Ledger
from freshvec.scans.backfill import Backfill, Page


class PageAhead:
    """One page at most, read by one of the threads for pages.

    The ledger knows the page's fence, or an earlier one, before the page is read: a change that is read and
    written meanwhile must not be overtaken by what the page held before.
    """

    def __init__(self, backfill: Backfill, ledger: Ledger, threads: Executor) -> None:
        self._backfill = backfill
        self._ledger = ledger
        self._page: tuple[int, Future[Page]] | None = None
        self._threads = threads
        self.expect()

    @property
    def is_under_way(self) -> bool:
        return self._page is not None

    def expect(self, fence: float = math.inf) -> None:
        """Tell the ledger what a walk, which begins or goes on, has yet to read: a page under this fence, and
        from a replica maybe pages under earlier ones."""
        self._ledger.expect(min(fence, self._backfill.earliest_fence))

    def take(self, limit: int) -> tuple[int, Page]:
        """The next page and its fence: what was read ahead, or read now."""
        if self._page is None:
            return self._backfill.draw_fence(), self._backfill.read_page(limit)
        fence, page = self._page
        self._page = None
        return fence, page.result()

    def begin(self, limit: int) -> None:
        """The page that was taken is open in the ledger: read the next one, if there is one."""
        if self._backfill.proves or self._backfill.exhausted:
            self.expect()
            return
        fence = self._backfill.draw_fence()
        self.expect(fence)
        self._page = fence, self._threads.submit(self._backfill.read_page, limit)

    def close(self) -> None:
        if self._page is not None:
            self._page[1].cancel()
