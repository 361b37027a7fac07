"""Whether the process does what it is there for: what a load balancer or a probe asks."""

from freshvec.health.process import ProcessNow
from freshvec.health.watch import Seen


def unready(process: ProcessNow, seen: Seen) -> list[str]:
    """Why it is not ready; empty when the database answers, and every sync is kept here or by another
    worker."""
    reasons = [] if process.is_alive else ["the worker's loop does not turn"]
    if not process.workers:
        reasons.append("no worker has begun yet")
    if seen.error is not None:
        reasons.append(f"database: {seen.error}")
    reasons += [f"sync {name}: {why}" for name, why in process.left_out.items()]
    for sync in process.syncs:
        if sync.trouble:
            reasons.append(f"sync {sync.name}: {sync.trouble}")
        elif not sync.is_running and not sync.stands_by:
            reasons.append(f"sync {sync.name}: it has not begun yet")
    return reasons
