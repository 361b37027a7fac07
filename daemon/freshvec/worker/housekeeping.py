"""What a worker does now and then, on threads of its own: sweeps, notes, looks at the database's load."""

from collections.abc import Callable

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.schedulers.background import BackgroundScheduler
from loguru import logger


class Housekeeping:
    """Jobs that are run every so many seconds, each of them once at a time. A failed one is logged."""

    def __init__(self) -> None:
        self._scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
        )
        self._scheduler.add_listener(_log_error, EVENT_JOB_ERROR)

    def every(self, seconds: float, job: Callable[[], object], name: str, *, jitter: float = 0.0) -> None:
        """Run `job` every so many seconds, up to `jitter` seconds earlier or later."""
        self._scheduler.add_job(job, "interval", seconds=seconds, jitter=jitter or None, id=name)

    def start(self) -> None:
        self._scheduler.start()

    def stop(self) -> None:
        """Begin no job any more."""
        self._scheduler.shutdown(wait=False)


def _log_error(event: JobExecutionEvent) -> None:
    logger.warning("housekeeping {}: {}", event.job_id, event.exception)
