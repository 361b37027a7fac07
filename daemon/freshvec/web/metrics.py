"""Metrics for Prometheus: made at each scrape of what the process knows and what was last read of the status.

Labels are `sync`, `model` and `stage`, never a row's key. docs/monitoring has a dashboard and alert rules.
"""

import platform
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
    SummaryMetricFamily,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from freshvec import __version__
from freshvec.health.process import ModelNow, ProcessNow, SyncNow
from freshvec.health.status import is_fresh
from freshvec.health.watch import Seen
from freshvec.pipeline.lags import BOUNDS, Lags

# By name: what it says, and where it comes from.
_SYNC_COUNTERS: dict[str, tuple[str, Callable[[SyncNow], float]]] = {
    "rows_written": ("Rows brought up to date, unchanged ones included", lambda sync: sync.totals.done),
    "rows_encoded": ("Rows that got a vector", lambda sync: sync.totals.encoded),
    "row_failures": ("Rows whose text could not be encoded", lambda sync: sync.totals.failed),
    "write_transactions": ("Transactions that wrote rows", lambda sync: sync.totals.writes),
    "texts_truncated": ("Texts longer than the model reads", lambda sync: sync.totals.truncated),
    "pipeline_starts": ("Starts of the pipeline; after an error it begins anew", lambda sync: sync.starts),
}
_SYNC_GAUGES: dict[str, tuple[str, Callable[[SyncNow], float]]] = {
    "owned": ("Whether this worker keeps the sync; others stand by", lambda sync: sync.is_owner),
    "running": ("Whether the sync's pipeline runs in this worker", lambda sync: sync.is_running),
    "trouble": ("Whether something keeps the sync from being kept", lambda sync: bool(sync.trouble)),
    "in_flight_rows": ("Rows read and not yet written", lambda sync: sync.in_flight),
}
_STATUS_GAUGES: dict[str, tuple[str, Callable[[dict[str, object]], object]]] = {
    "rows": ("Rows that have a vector of their text", lambda row: row["rows_fresh"]),
    "failed_rows": ("Rows whose text could not be encoded", lambda row: row["rows_failed"]),
    "coverage_ratio": ("Share of the rows that are fresh", lambda row: row["coverage"]),
    "backlog_rows": ("Changes that wait, and rows a walk has not reached", lambda row: row["backlog"]),
    "queue_age_seconds": ("Age of the oldest change", lambda row: row["oldest_unfresh_seconds"] or 0),
    "eta_seconds": ("Time until all is fresh at the present rate", lambda row: row["eta_seconds"]),
    "fresh": ("Whether every row is fresh", is_fresh),
    "paused": ("Whether bulk work waits for the database", lambda row: row["paused"] is not None),
    "index_bytes": ("Size of the index on the vectors", lambda row: row.get("index_bytes")),
    "index_valid": ("Whether searches can use that index", lambda row: row.get("index_valid")),
    "index_build_ratio": (
        "Share of the present phase of an index's build that is done",
        lambda row: row.get("index_share"),
    ),
    "index_trouble": (
        "Whether something keeps the declared index from being built",
        lambda row: row.get("index_trouble") is not None,
    ),
    "last_proven_timestamp_seconds": (
        "When a whole walk last proved every row fresh",
        lambda row: row["proven_at"] and row["proven_at"].timestamp(),  # type: ignore[attr-defined]
    ),
}
_MODEL_COUNTERS: dict[str, tuple[str, Callable[[ModelNow], float]]] = {
    "encoder_tokens": ("Tokens encoded", lambda model: model.tokens),
    "encoder_padded_tokens": ("Tokens encoded, padding included", lambda model: model.padded),
    "encoder_batches": ("Batches encoded", lambda model: model.batches),
    "encoder_failures": ("Texts that could not be encoded", lambda model: model.failed),
    "encoder_out_of_memory": ("Batches that did not fit the device", lambda model: model.out_of_memory),
}
_MODEL_GAUGES: dict[str, tuple[str, Callable[[ModelNow], float | None]]] = {
    "encoder_waiting_batches": ("Batches that wait for the encoder", lambda model: model.waiting),
    "encoder_batch_tokens": ("Padded tokens a batch may have", lambda model: model.batch_tokens),
    "encoder_on_gpu": ("Whether a GPU encodes", lambda model: model.device != "cpu"),
    "device_memory_used_bytes": (
        "Memory of the GPU in use by all processes",
        lambda model: model.memory.used * 1e9 if model.memory else None,
    ),
    "device_memory_total_bytes": (
        "Memory of the GPU",
        lambda model: model.memory.total * 1e9 if model.memory else None,
    ),
}


class Metrics:
    """One registry of its own, with the process's memory and CPU time in it."""

    def __init__(self, process: Callable[[], ProcessNow], status: Callable[[], Seen]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Ours(process, status))
        ProcessCollector(registry=self._registry)

    def exposed(self, accept: str) -> tuple[bytes, str]:
        """All of them, in the format that is accepted, and its content type."""
        try:
            encode, content_type = choose_encoder(accept)
        except (TypeError, ValueError):  # a version that is no number
            encode, content_type = choose_encoder("")
        return encode(self._registry), content_type


class _Ours(Collector):
    def __init__(self, process: Callable[[], ProcessNow], status: Callable[[], Seen]) -> None:
        self._process = process
        self._status = status

    def collect(self) -> Iterator[Metric]:
        process, seen = self._process(), self._status()
        build = {"version": __version__, "python": platform.python_version()}
        yield InfoMetricFamily("freshvec_build", "What runs", value=build)
        yield CounterMetricFamily(
            "freshvec_reconnects", "Times the database was lost", value=process.reconnects
        )
        yield _plain("alive", "Whether the main loop turns and every pipeline moves", process.is_alive)
        yield _plain("workers", "Workers that this tells of", process.workers)
        yield _plain("database_up", "Whether the status could be read", seen.error is None)
        yield _plain("status_age_seconds", "Age of what is said of the status", seen.age)
        yield _plain("left_out_syncs", "Syncs whose models could not be loaded", len(process.left_out))
        yield from _of_syncs(process.syncs)
        yield from _of_status({sync.name: seen.syncs.get(sync.name) for sync in process.syncs})
        yield from _of_models(process.models)
        yield _stages(process)


def _of_syncs(syncs: list[SyncNow]) -> Iterator[Metric]:
    for name, (text, count) in _SYNC_COUNTERS.items():
        yield _counter(name, text, "sync", ((sync.name, count(sync)) for sync in syncs))
    for name, (text, value) in _SYNC_GAUGES.items():
        yield _gauge(name, text, "sync", ((sync.name, value(sync)) for sync in syncs))
    lags = HistogramMetricFamily(
        "freshvec_lag_seconds", "From a small change to its vector, as committed", labels=["sync"]
    )
    for sync in syncs:
        lags.add_metric([sync.name], _buckets(sync.totals.lags), sync.totals.lags.total_ms / 1000)
    yield lags


def _buckets(lags: Lags) -> list[tuple[str, float]]:
    """Cumulative counts by upper bounds in seconds."""
    so_far, buckets = 0, []
    for bound, count in zip((*(f"{bound / 1000:g}" for bound in BOUNDS), "+Inf"), lags.counts, strict=True):
        so_far += count
        buckets.append((bound, float(so_far)))
    return buckets


def _of_status(rows: dict[str, dict[str, object] | None]) -> Iterator[Metric]:
    """What nobody has read yet, or what is not known, is left out."""
    known = {name: row for name, row in rows.items() if row is not None}
    for name, (text, value) in _STATUS_GAUGES.items():
        yield _gauge(name, text, "sync", ((sync, value(row)) for sync, row in known.items()))
    refused = ((sync, row["refused"]) for sync, row in known.items())
    yield _counter("fence_refusals", "Writes refused by fences of another time", "sync", refused)


def _of_models(models: list[ModelNow]) -> Iterator[Metric]:
    for name, (text, count) in _MODEL_COUNTERS.items():
        yield _counter(name, text, "model", ((model.name, count(model)) for model in models))
    for name, (text, value) in _MODEL_GAUGES.items():
        yield _gauge(name, text, "model", ((model.name, value(model)) for model in models))


def _stages(process: ProcessNow) -> Metric:
    """Reading, tokenising and writing belong to a sync, encoding to a model."""
    found = SummaryMetricFamily(
        "freshvec_stage_seconds", "Time spent in a stage, per run", labels=["sync", "model", "stage"]
    )
    for sync in process.syncs:
        for stage, spent in sync.stages.items():
            found.add_metric([sync.name, sync.model, stage], spent.runs, spent.seconds)
    for model in process.models:
        found.add_metric(["", model.name, "encode"], model.batches, model.busy_seconds)
    return found


def _plain(name: str, text: str, value: float | None) -> Metric:
    return GaugeMetricFamily(f"freshvec_{name}", text, value=None if value is None else float(value))


def _counter(name: str, text: str, label: str, values: Iterable[tuple[str, object]]) -> Metric:
    family = CounterMetricFamily(f"freshvec_{name}", text, labels=[label])
    return _filled(family, values)


def _gauge(name: str, text: str, label: str, values: Iterable[tuple[str, object]]) -> Metric:
    family = GaugeMetricFamily(f"freshvec_{name}", text, labels=[label])
    return _filled(family, values)


def _filled(family: CounterMetricFamily | GaugeMetricFamily, values: Iterable[tuple[str, object]]) -> Metric:
    for label, value in values:
        if value is not None:
            family.add_metric([label], float(value))  # type: ignore[arg-type]
    return family
