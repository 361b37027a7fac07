"""What the pipelines of a worker share: connections and threads, as many for fifty syncs as for one, and what
is known of the database's load."""

from concurrent.futures import ThreadPoolExecutor

from freshvec.config import Settings
from freshvec.pipeline.crew import Crew
from freshvec.pipeline.pool import Pool
from freshvec.pipeline.pressure import Pressure
from freshvec.scans.replica import Replica
from freshvec.target.building import Builds

_CONNECTIONS = 6
_READERS = 4
_WRITERS = 3
_PAGES = 2


class Resources:
    """Connections and threads of one worker."""

    def __init__(self, settings: Settings, pressure: Pressure) -> None:
        url, replica = settings.database.url, settings.database.replica
        self.pressure = pressure
        self.pool = Pool(url, "worker", _CONNECTIONS, is_leased=settings.daemon.share)
        self._replicas = Pool(replica, "walk", _PAGES) if replica.get_secret_value() else None
        self.replica = Replica(self._replicas) if self._replicas else None
        self.readers = Crew("reader", _READERS)
        self.writers = Crew("writer", _WRITERS)
        self.builds = Builds(url)
        self.pages = ThreadPoolExecutor(_PAGES, thread_name_prefix="pages")

    def close(self) -> None:
        """End the threads and close the connections; what is under way may end first."""
        self.readers.close()
        self.writers.close()
        self.pages.shutdown(wait=False, cancel_futures=True)
        self.pool.close()
        if self._replicas is not None:
            self._replicas.close()
