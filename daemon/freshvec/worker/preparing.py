"""What must be done before a sync can be applied and may take long: on a thread and a session of its own."""

import threading
from collections.abc import Callable
from dataclasses import replace

from pydantic import SecretStr

from freshvec.db import connect, is_denied
from freshvec.schema.apply import prepare
from freshvec.schema.plan import Plan

_AWAITED_SECONDS = 0.2  # most are over by then


class Preparing:
    """Of one sync. The thread keeps no process alive, and what it has not committed by then is undone."""

    def __init__(self, url: SecretStr, on_end: Callable[[], None]) -> None:
        self._url = url
        self._on_end = on_end
        self._under_way: Plan | None = None
        self._over = threading.Event()
        self._error: Exception | None = None
        self._done: Plan | None = None  # the last one that was prepared

    def prepared(self, planned: Plan) -> Plan | None:
        """The plan, once nothing is left to be prepared for it; None while something is under way.

        Raises what ended an attempt; the next call begins another one. What this role may not do is left in
        the plan, so that whoever carries it out can say what that is.
        """
        if not planned.needs_preparing:
            return planned
        if self._has_prepared(planned):
            return replace(planned, is_prepared=True)
        if self._under_way is None:
            self._begin(planned)
            self._over.wait(_AWAITED_SECONDS)
        if not self._over.is_set():
            return None
        attempted, self._under_way = self._under_way, None
        if self._error is None:
            self._done = attempted
            return replace(planned, is_prepared=True) if self._has_prepared(planned) else None
        if is_denied(self._error):
            return planned
        raise self._error

    def _has_prepared(self, planned: Plan) -> bool:
        """Whether it was this that was prepared, and no copy is lacking any more."""
        return self._done is not None and self._done.is_of_the_same(planned) and not planned.beside

    def _begin(self, planned: Plan) -> None:
        self._under_way, self._error = planned, None
        self._over.clear()
        threading.Thread(target=self._run, args=[planned], name="prepare", daemon=True).start()

    def _run(self, planned: Plan) -> None:
        try:
            with connect(self._url, "prepare") as connection:
                prepare(connection, planned)
        except Exception as error:
            self._error = error
        finally:
            self._over.set()
            self._on_end()
