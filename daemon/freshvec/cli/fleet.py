"""`run` and `backfill` with several workers: what is refused before, and what is shown meanwhile."""

import sys
from collections.abc import Sequence

from loguru import logger

from freshvec import __version__
from freshvec.cli.fleet_view import FleetView, followed
from freshvec.config import Settings, Sync
from freshvec.fleet import membership, room
from freshvec.fleet.member import Member, members
from freshvec.fleet.supervisor import Supervisor
from freshvec.worker.following import Following


def run(settings: Settings, syncs: tuple[Sync, ...], workers: str, command: Sequence[str]) -> int:
    """Keep every row fresh by so many workers, each by this command. Returns the exit code.

    Raises FreshvecError where there are no GPUs for them, or too few sessions.
    """
    supervisor = _supervisor(settings, workers, command, once=False)
    with followed(view_of(settings, syncs, once=False, has_bars=False)):
        return supervisor.run()


def backfill(settings: Settings, syncs: tuple[Sync, ...], workers: str, command: Sequence[str]) -> int:
    """The same until every row is fresh. Rows that could not be encoded make the exit code 1."""
    supervisor = _supervisor(settings, workers, command, once=True)
    view = view_of(settings, syncs, once=True, has_bars=False)
    with followed(view):
        code = supervisor.run()
    return 1 if view.summary() and code == 0 else code


def _supervisor(settings: Settings, workers: str, command: Sequence[str], *, once: bool) -> Supervisor:
    planned = members(settings, workers)
    room.check(settings.database.url, len(planned))
    logger.info("freshvec {}: starting {} workers", __version__, len(planned))

    def of(member: Member) -> list[str]:
        # -P: nothing in the folder that it is started in is taken for a package.
        program = [sys.executable, "-P", "-m", "freshvec"]
        return [*program, *command, "--member", membership.written(member.number)]

    return Supervisor(planned, of, once=once, shutdown_seconds=settings.daemon.shutdown_seconds)


def view_of(settings: Settings, syncs: tuple[Sync, ...], *, once: bool, has_bars: bool) -> FleetView:
    """Of what is run of these syncs now: a swap may show another edition of one.

    `has_bars`: whether all that is logged comes from this process. Lines of others would break the bars, and
    so would bars the lines for a program.
    """
    names = [sync.name for sync in Following(settings.database.url, syncs).at_start()]
    has_bars = has_bars and settings.daemon.log_format == "text"
    return FleetView(settings.database.url, names, has_bars=has_bars, once=once)
