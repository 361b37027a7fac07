"""What a worker's process knows of itself, as values: it asks nobody, so it can be asked at any time."""

from dataclasses import dataclass

from freshvec.encoding.dispatch import Dispatcher
from freshvec.encoding.machine import DeviceMemory
from freshvec.pipeline.progress import Totals
from freshvec.pipeline.stages import Spent, Stage
from freshvec.worker.keeper import Keeper
from freshvec.worker.worker import Worker


@dataclass(frozen=True)
class SyncNow:
    """One sync in this process; counts are since its start."""

    name: str
    table: str
    model: str
    phase: str
    is_owner: bool
    stands_by: bool
    is_running: bool
    in_flight: int  # rows read and not yet written
    starts: int  # of its pipeline
    trouble: str | None
    totals: Totals
    stages: dict[Stage, Spent]


@dataclass(frozen=True)
class ModelNow:
    """One model in this process; counts are since its start."""

    name: str
    device: str
    batches: int
    tokens: int
    padded: int  # tokens, padding included
    busy_seconds: float
    waiting: int  # batches
    batch_tokens: int  # padded tokens per batch, where the search for the best size stands
    failed: int  # texts
    out_of_memory: int  # times
    memory: DeviceMemory | None


@dataclass(frozen=True)
class ProcessNow:
    """One worker, or several as one (fleet/gathered.py). `left_out` are the syncs whose models could not be
    loaded, and why."""

    is_alive: bool
    paused: str | None  # why bulk work waits
    reconnects: int
    left_out: dict[str, str]
    syncs: list[SyncNow]
    models: list[ModelNow]
    workers: int = 1


def look(worker: Worker) -> ProcessNow:
    """What it is at. May be called on any thread."""
    return ProcessNow(
        is_alive=worker.pulse.is_alive,
        paused=worker.pressure.reason,
        reconnects=worker.reconnects,
        left_out=dict(worker.left_out),
        syncs=[_sync(keeper) for keeper in list(worker.keepers)],
        models=[_model(name, dispatcher) for name, dispatcher in list(worker.dispatchers.items())],
    )


def _sync(keeper: Keeper) -> SyncNow:
    pipeline = keeper.pipeline  # it may end at any moment
    return SyncNow(
        name=keeper.sync.name,
        table=keeper.sync.table,
        model=keeper.sync.model,
        phase=keeper.phase,
        is_owner=keeper.is_owner,
        stands_by=keeper.stands_by,
        is_running=pipeline is not None,
        in_flight=pipeline.ledger.in_flight() if pipeline else 0,
        starts=keeper.progress.starts,
        trouble=keeper.trouble,
        totals=keeper.progress.totals(),
        stages=keeper.progress.stages.totals(),
    )


def _model(name: str, dispatcher: Dispatcher) -> ModelNow:
    return ModelNow(
        name=name,
        device=dispatcher.encoder.device,
        batches=dispatcher.batches,
        tokens=dispatcher.tokens,
        padded=dispatcher.padded,
        busy_seconds=dispatcher.busy_seconds,
        waiting=dispatcher.waiting,
        batch_tokens=dispatcher.budget.settled,
        failed=dispatcher.failed,
        out_of_memory=dispatcher.out_of_memory,
        memory=dispatcher.memory,
    )
