"""What a worker does now and then beside its work, on APScheduler's threads: it notes what it measured, and
looks at the database's load.

APScheduler goes by the wall clock, which a virtual machine that resumes, or NTP, may set to any time. So
nothing is here that rows or locks rely on: sweeps are the main loop's (sweeps.py).
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger
from loguru import logger


class _Every(BaseTrigger):  # type: ignore[misc]
    """So long after now. APScheduler's own trigger goes through every time that a clock put forward has
    passed over: for one that was years behind at boot, for minutes and with all of the memory."""

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)

    def get_next_fire_time(self, previous: datetime | None, now: datetime) -> datetime:
        return now + self.interval


class Housekeeping:
    """Jobs that are run every so many seconds, each of them once at a time. A failed one is logged."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
        )
        self._scheduler.add_listener(_log_error, EVENT_JOB_ERROR)

    def every(self, seconds: float, job: Callable[[], object], name: str) -> None:
        """Run `job` every so many seconds."""
        self._scheduler.add_job(job, _Every(seconds), id=name)

    def start(self) -> None:
        self._scheduler.start()

    def tend(self) -> None:
        """Run what is put off by a clock that was set back: it would be run once the clock is there again."""
        now = datetime.now(UTC)
        for job in self._scheduler.get_jobs():
            if job.next_run_time - now > job.trigger.interval:
                job.modify(next_run_time=now)

    def stop(self) -> None:
        """Begin no job any more."""
        self._scheduler.shutdown(wait=False)


def _log_error(event: JobExecutionEvent) -> None:
    logger.warning("housekeeping {}: {}", event.job_id, event.exception)
