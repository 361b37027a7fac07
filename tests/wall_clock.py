"""The wall clock of the machine, as a test puts it forward or back."""

from datetime import datetime, timedelta, tzinfo
from typing import Any

import pytest


class WallClock(datetime):
    """Takes the place of `datetime`; `by` is how far it is from the machine's."""

    by = timedelta()

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:
        return datetime.now(tz) + cls.by

    @classmethod
    def of_scheduler(cls, monkeypatch: pytest.MonkeyPatch) -> type["WallClock"]:
        """The one that APScheduler and who tends it go by."""
        monkeypatch.setattr(cls, "by", timedelta())
        monkeypatch.setattr("apscheduler.schedulers.base.datetime", cls)
        monkeypatch.setattr("freshvec.worker.housekeeping.datetime", cls)
        return cls
