"""What encodes: which device really runs each model, and whether its memory suffices."""

import subprocess
from collections.abc import Iterator
from pathlib import Path

from freshvec.doctor.finding import Finding, fault, ok, warning
from freshvec.doctor.place import Place
from freshvec.encoding import openvino_session
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.loading import Models
from freshvec.encoding.machine import cpu_limit, gpu_memory, multiplies_bf16
from freshvec.errors import DeviceError, FreshvecError
from freshvec.records import OutOfMemoryError

_TRIED = "Is the device used that is asked for? " * 60  # as long as any model reads
_CGROUP = Path("/sys/fs/cgroup")
_SPARE_GB = 1.0  # of memory, beside the model


def device(place: Place) -> Iterator[Finding]:
    """Each model loaded and tried on its device; a GPU that is there and is not used."""
    gpus = graphics_cards()
    for name in place.model_names:
        try:
            encoder = place.models.encoder(name)
            size = place.models.first_batch_tokens(name, encoder)
            tokens = encoder.tokenize([_TRIED])
            encoder.encode(tokens * max(1, size // len(tokens[0])))
        except OutOfMemoryError as error:
            yield _out_of_memory(name, str(error))
            continue
        except FreshvecError as error:
            yield fault("device", f"{name}: {error.problem}", "no row of its syncs is encoded", error.remedy)
            continue
        if gpus and encoder.device == "cpu":
            yield _unused(place, name, gpus)
        else:
            where = encoder.device if encoder.device != "cpu" else f"cpu, {cpu_limit()} cores"
            yield _slower(place, name, encoder) or ok(
                "device", f"{name} runs in {encoder.precision} on {where}"
            )


def memory(place: Place) -> Iterator[Finding]:
    """What is known of memory that did not suffice, and what is left of it now."""
    for name in place.model_names:
        for where, ceiling in place.models.budgets.ceilings(name).items():
            yield warning(
                "memory",
                f"{name} on {where} ran out of memory before: batches have at most {ceiling:,} tokens",
                "small batches are slow on a GPU",
                "nvidia-smi shows who else uses it; free some. Larger ones are tried from time to time, and "
                f"at once after a restart without {place.models.budgets.path}",
            )
    yield from _main_memory(place)
    for number, _ in enumerate(graphics_cards()):
        left = gpu_memory(f"cuda:{number}")
        if left is not None and left.free < _SPARE_GB:
            yield warning(
                "memory",
                f"GPU {number} has {left.free:.1f} of {left.total:.1f} GB free",
                "a batch that does not fit is halved, and at last the process ends",
                "nvidia-smi shows by whom it is used; free some, or write another device",
            )


def graphics_cards() -> list[str]:
    """The NVIDIA cards of this machine, as nvidia-smi lists them; none where it is not installed."""
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.split(" (UUID")[0] for line in done.stdout.splitlines() if line.startswith("GPU ")]


def _unused(place: Place, name: str, gpus: list[str]) -> Finding:
    """Why a model runs on the CPU where there is a GPU."""
    if place.settings.daemon.device == "cpu":
        return ok("device", f'{name} runs on the CPU, as device = "cpu" says, beside {gpus[0]}')
    try:
        settings = place.settings.model_copy(
            update={"daemon": place.settings.daemon.model_copy(update={"device": "cuda"})}
        )
        OnnxEncoder(Models(settings).artefact(name), "cuda")
        problem, remedy = "only a second attempt could use it", "Restart freshvec."
    except DeviceError as error:
        problem, remedy = error.problem, error.remedy
    return fault(
        "device",
        f"the GPU is not used: {name} runs on the CPU beside {gpus[0]}; {problem}",
        "a GPU encodes ten to a hundred times as fast",
        remedy,
    )


def _slower(place: Place, name: str, encoder: OnnxEncoder) -> Finding | None:
    """That bf16 would be quicker on this processor, and is left unused though nothing was asked for."""
    settled = place.settings.daemon.precision is not None
    if encoder.device != "cpu" or encoder.precision != "fp32" or settled or not multiplies_bf16():
        return None
    refusal = openvino_session.refusal()
    if refusal is not None:
        trouble, remedy = f"it would take bf16, and {refusal.problem}", refusal.remedy
    else:
        trial = place.models.precisions.trial(place.models.artefact(name))
        if trial is None or not trial.is_quicker:
            return None
        trouble = f"bf16 is {trial.speed:.1f} times as fast, and its vectors are of fp32, so they stay"
        remedy = 'Write precision = "bf16": every row is then encoded anew.'
    what = f"{name} runs in fp32 on a processor with AMX; {trouble}"
    return warning("device", what, "backfills and bursts take longer than they have to", remedy)


def _out_of_memory(name: str, message: str) -> Finding:
    return fault(
        "memory",
        f"{name} does not fit: {' '.join(message.split())[:160]}",
        "batches are halved, then the model is loaded again, and at last the process ends",
        "free memory (nvidia-smi, free -m), write a smaller batch_tokens, or choose a smaller model",
    )


def _main_memory(place: Place) -> Iterator[Finding]:
    """Whether the models fit into what is left of this machine's memory."""
    available = _available_gb()
    needed = sum(
        max(graph.megabytes for graph in artefact.graphs.values()) / 1000
        for artefact in place.models.exported(place.cards).values()
    )
    if available is not None and available < needed + _SPARE_GB:
        yield warning(
            "memory",
            f"{available:.1f} GB are available here, and the models take {needed:.1f} GB and more",
            "the system ends a process when memory is used up",
            "free -m shows what is used; stop something, or choose smaller models",
        )
    elif available is not None:
        yield ok("memory", f"{available:.1f} GB available here, {needed:.1f} GB for the models")


def _available_gb() -> float | None:
    """What a new process may have, cut by the limit of the cgroup."""
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        available = int(lines["MemAvailable"].split()[0]) * 1024
        most, used = _CGROUP / "memory.max", _CGROUP / "memory.current"
        if most.exists() and most.read_text().strip() != "max":
            available = min(available, int(most.read_text()) - int(used.read_text()))
        return available / 1e9
    except (OSError, ValueError, KeyError):
        return None
