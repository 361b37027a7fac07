"""What several workers know of themselves, as one: what the page and the metrics show of all."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import reduce
from typing import TypeVar

from freshvec.health.process import ModelNow, ProcessNow, SyncNow
from freshvec.pipeline.lags import Lags
from freshvec.pipeline.progress import Totals
from freshvec.pipeline.stages import Spent, Stage

_Named = TypeVar("_Named", SyncNow, ModelNow)


def gathered(workers: Sequence[ProcessNow], *, is_alive: bool) -> ProcessNow:
    """Counts are added up; of what only one of them can say, the first that says anything counts.

    `is_alive` is said of who gathers: a worker that is stuck is started again by others.
    """
    syncs = [sync for worker in workers for sync in worker.syncs]
    models = [model for worker in workers for model in worker.models]
    left_out: dict[str, str] = {}
    for worker in workers:
        left_out |= worker.left_out
    return ProcessNow(
        is_alive=is_alive,
        paused=next((worker.paused for worker in workers if worker.paused), None),
        reconnects=sum(worker.reconnects for worker in workers),
        left_out=left_out,
        syncs=[reduce(_both_syncs, same) for same in _by_name(syncs)],
        models=[reduce(_both_models, same) for same in _by_name(models)],
        workers=len(workers),
    )


def _by_name(values: Iterable[_Named]) -> list[list[_Named]]:
    found: dict[str, list[_Named]] = {}
    for value in values:
        found.setdefault(value.name, []).append(value)
    return list(found.values())


def _both_syncs(one: SyncNow, other: SyncNow) -> SyncNow:
    shown = one if one.is_running or not other.is_running else other  # whose phase is shown
    return replace(
        shown,
        is_owner=one.is_owner or other.is_owner,
        stands_by=one.stands_by and other.stands_by,
        is_running=one.is_running or other.is_running,
        in_flight=one.in_flight + other.in_flight,
        starts=one.starts + other.starts,
        trouble=one.trouble or other.trouble,
        totals=_both_totals(one.totals, other.totals),
        stages=_both_stages(one.stages, other.stages),
    )


def _both_totals(one: Totals, other: Totals) -> Totals:
    lags = Lags()
    for each in (one.lags, other.lags):
        lags.merge(each)
    return Totals(
        done=one.done + other.done,
        encoded=one.encoded + other.encoded,
        failed=one.failed + other.failed,
        truncated=one.truncated + other.truncated,
        writes=one.writes + other.writes,
        lags=lags,
    )


def _both_stages(one: dict[Stage, Spent], other: dict[Stage, Spent]) -> dict[Stage, Spent]:
    return {
        stage: Spent(one[stage].runs + other[stage].runs, one[stage].seconds + other[stage].seconds)
        for stage in one
    }


def _both_models(one: ModelNow, other: ModelNow) -> ModelNow:
    return replace(
        one,
        batches=one.batches + other.batches,
        tokens=one.tokens + other.tokens,
        padded=one.padded + other.padded,
        busy_seconds=one.busy_seconds + other.busy_seconds,
        waiting=one.waiting + other.waiting,
        failed=one.failed + other.failed,
        out_of_memory=one.out_of_memory + other.out_of_memory,
    )
