"""A worker's share of a sync: the whole of it, or the shards that are its own among workers that share it.

Keys are dealt out to shards by Postgres's own hash, so equal keys, however they are spelt, are in one shard.
The live changes of a shard are its owner's alone. Pages of a walk are anybody's (scans/backfill.py), so a row
may be under way in two workers at once; what follows from that is in pipeline/amid_walk.py.
"""

from dataclasses import dataclass

SHARDS = 64
ALL = -1  # every bit of a bigint


@dataclass(frozen=True)
class Share:
    """`shards` has a bit for each shard that is owned. Who `leads` does what only one may do: applies, begins
    and ends walks, answers requests, looks for orphans, builds the index. `pid` is that of the session whose
    locks say all this, None for a worker that keeps the sync alone.
    """

    shards: int = ALL
    leads: bool = True
    pid: int | None = None

    @property
    def is_whole(self) -> bool:
        """Whether no other worker shares the sync."""
        return self.pid is None


WHOLE = Share()


def mask(shards: set[int]) -> int:
    """A set of shards as the bits of a signed bigint."""
    bits = sum(1 << shard for shard in shards)
    return bits - 2**64 if bits >= 2**63 else bits
