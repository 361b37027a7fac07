"""Amid a walk: what members of those who share a sync write otherwise than a worker alone.

A page of a walk may be any member's, so a row may be under way in two workers: read with a page here, and as
a live change by the owner of its shard. A worker alone knows of both readings (pipeline/ledger.py). Members
do not, so

- a row that is emptied while the table is walked leaves a tombstone, since a page may hold what it was;
- a live reading from before the walk's beginning is not written: what changed since then may have been noted
  by nobody, which is why walks begin, and a page that found it so has done nothing about it;
- a page takes nothing away. It queues what has no text any more, so that the shard's owner does.

Proved in readings.pml.
"""

from collections.abc import Sequence

from freshvec.pipeline.epoch import Walk
from freshvec.pipeline.ledger import Ready
from freshvec.records import Fate, Key, Outcome, Urgency


def is_outdated(ready: Ready, walk: Walk) -> bool:
    """Whether this was read before the last walk began."""
    return ready.portion.urgency is not Urgency.BACKFILL and ready.portion.fence <= walk.fence


def as_member(batches: Sequence[Ready], walk: Walk) -> tuple[list[Ready], list[Key]]:
    """What is to be written of these, and the keys that are to be queued."""
    queued: list[Key] = []
    written = []
    for ready in batches:
        if ready.portion.urgency is Urgency.BACKFILL:
            queued += [outcome.key for outcome in ready.outcomes if _empties(outcome)]
            outcomes = [_kept(outcome) if _empties(outcome) else outcome for outcome in ready.outcomes]
        else:
            outcomes = [
                _emptied(outcome, walk) if _is_empty(outcome) else outcome for outcome in ready.outcomes
            ]
        written.append(Ready(ready.portion, outcomes))
    return written, queued


def _is_empty(outcome: Outcome) -> bool:
    """Whether the row was read without a text."""
    return outcome.is_tombstone or outcome.fate is Fate.CLEAR or _is_kept_empty(outcome)


def _is_kept_empty(outcome: Outcome) -> bool:
    return outcome.fate is Fate.KEEP and outcome.content_hash is None


def _empties(outcome: Outcome) -> bool:
    """Whether the target has something of a row without a text."""
    return outcome.is_tombstone or outcome.fate in (Fate.CLEAR, Fate.REMOVE)


def _kept(outcome: Outcome) -> Outcome:
    return Outcome(outcome.key, outcome.fence, Fate.KEEP)


def _emptied(outcome: Outcome, walk: Walk) -> Outcome:
    """A tombstone where a page may be under way; else nothing is left, whatever the reading found."""
    if outcome.is_tombstone or walk.is_under_way:
        return Outcome(outcome.key, outcome.fence, Fate.STORE)
    return Outcome(outcome.key, outcome.fence, Fate.CLEAR)
