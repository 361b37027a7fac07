"""Whether the pipeline of a keeper is rung, or polls: the bell is taken and let go, as what it costs
demands."""

from freshvec.capture.bell import Bell, Listener
from freshvec.config import Daemon
from freshvec.db import Connection
from freshvec.pipeline.pipeline import Pipeline


class Ringing:
    """Used on the main thread, with the listener's connection.

    Those who share a sync have one bell: whoever has it, all of them are rung, and once nobody has it, all of
    them poll.
    """

    def __init__(self, name: str, settings: Daemon) -> None:
        self._bell = Bell(name)
        self._may_ring = settings.wake == "bell"
        self._is_shared = settings.share

    def rang(self, times: int, listener: Listener, pipeline: Pipeline) -> None:
        """Something has changed: let the pipeline look now."""
        pipeline.ring()
        if self._bell.is_too_loud(times, listener.connection):
            self.silence(listener.connection, pipeline)

    def tend(self, listener: Listener, pipeline: Pipeline) -> None:
        """Take the bell once it has become quiet, unless nobody may ring."""
        is_wanted = pipeline.polling.wants_bell and not self._bell.is_taken
        if not (is_wanted and self._may_ring and listener.may_ring):
            return
        pipeline.polling.wants_bell = False
        connection = listener.connection
        if self._bell.take(connection) or (self._is_shared and self._bell.is_anothers(connection)):
            pipeline.polling.is_rung = True
            pipeline.look()  # what was written before the bell was taken did not ring

    def look(self, listener: Listener, pipeline: Pipeline) -> None:
        """At a sweep: nobody may ring while the queue of notifications is filling."""
        if self._bell.is_taken and listener.is_queue_filling():
            self.silence(listener.connection, pipeline)

    def silence(self, connection: Connection, pipeline: Pipeline) -> None:
        """Let the pipeline poll: ringing would cost the writers more."""
        self.let_go(connection)
        self.poll(pipeline)

    def poll(self, pipeline: Pipeline) -> None:
        """Nobody rings, unless this worker has the bell."""
        if not self._bell.is_taken:
            pipeline.polling.begin()
        pipeline.look()  # it may have gone to sleep until it is rung

    def let_go(self, connection: Connection) -> None:
        """Be rung no more."""
        self._bell.release(connection, is_shared=self._is_shared)

    def lose(self) -> None:
        """The connection is gone, and the bell with it."""
        self._bell.lose()
