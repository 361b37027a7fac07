"""Measure graphs and baselines: they take turns in one run, round by round, because machines drift."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from freshvec.bench.baselines import Baseline, open_baseline
from freshvec.bench.matrix_rate import matrix_rate
from freshvec.bench.report import Contender, Report
from freshvec.bench.texts import Texts
from freshvec.bench.throughput import Pass, one_pass, settle, tokenizing_rates
from freshvec.encoding import openvino_session, quick_tokens
from freshvec.encoding.batching import page_rows
from freshvec.encoding.budget import BatchBudget, first_guess
from freshvec.encoding.encoder import OnnxEncoder
from freshvec.encoding.machine import cpu_limit, gpu_memory, multiplies_bf16
from freshvec.encoding.providers import choose
from freshvec.encoding.tokenizer import Tokenizer
from freshvec.encoding.tokenizer_pool import pool_processes
from freshvec.encoding.trial import Trials
from freshvec.errors import FreshvecError
from freshvec.models.artefact import Artefact, Precision
from freshvec.pipeline.progress import resident_mib

# fp16 is slower there than fp32, so the daemon never runs it.
_ON_CPU: tuple[Precision, ...] = ("fp32", "bf16", "int8")
_ON_GPU: tuple[Precision, ...] = ("fp16", "fp32")
_SEARCH_SECONDS = 60.0  # at most, for the batch size
_SEARCH_PASSES = 20  # through the texts, at most
Step = Callable[[str], None]


@dataclass(frozen=True)
class Options:
    """How to measure."""

    devices: tuple[str, ...] = ()  # empty: the CPU, and CUDA where there is one
    threads: int | None = None  # CPU threads of each; None: what the cgroup allows
    batch_tokens: int | None = None  # padded tokens per batch; None: found by the daemon's search
    baselines: tuple[Baseline, ...] = ()
    rounds: int = 3


def lineup(artefact: Artefact, devices: Sequence[str]) -> list[tuple[Precision, str]]:
    """Every installed graph with every device that runs it; TensorRT, which takes minutes to start, if asked.

    Raises ModelError when this onnxruntime cannot use a device, or no graph is for it.
    """
    chosen = [choose(device) for device in devices or dict.fromkeys(("cpu", choose("auto")))]
    return [
        (precision, device)
        for device in chosen
        for precision in (_ON_CPU if device == "cpu" else _ON_GPU)
        if _can_run(artefact, precision)
    ]


def _can_run(artefact: Artefact, precision: Precision) -> bool:
    """Whether its graph is there; bf16 runs that of fp32, by a library and on a processor of its own."""
    return openvino_session.refusal() is None if precision == "bf16" else precision in artefact.graphs


def run(artefact: Artefact, texts: Texts, options: Options, step: Step) -> Report:
    """Measure every graph on every device, and the baselines beside them; `step` hears what is measured.

    Raises FreshvecError when a graph cannot run on a device that was asked for; whatever else cannot run is
    left out, and the report says why.
    """
    card = artefact.card
    tokens = Tokenizer(artefact.tokenizer_path, card.max_tokens, card.document_prefix).encode(texts.rows)
    report = Report(
        artefact,
        texts,
        options.threads or cpu_limit(),
        sum(map(len, tokens)),
        sum(text.truncated for text in tokens),
    )
    del tokens
    _line_up(report, options, step)
    _limits(report, step)
    for turn in range(1, options.rounds + 1):
        for contender in report.contenders:
            step(f"round {turn} of {options.rounds}: {contender.name} on {contender.device}")
            contender.passes.append(contender.encode(texts.rows))
        _limits(report, step)
    step("tokenising alone")
    quick = quick_tokens.installed() if _is_quick(artefact) else None
    report.left_out += [] if quick else [_without_quick_tokens()]
    processes = pool_processes(report.threads)
    report.tokenizing = tokenizing_rates(artefact, texts.rows, options.rounds, processes, quick)
    return report


def _line_up(report: Report, options: Options, step: Step) -> None:
    """Every graph and baseline that can run here into the report, and why others are left out.

    Raises FreshvecError when a graph cannot run on a device that was asked for.
    """
    for precision, device in lineup(report.artefact, options.devices):
        step(f"{precision} on {device}: loading it and looking for the batch size")
        try:
            report.contenders.append(_ours(report.artefact, report.texts.rows, precision, device, options))
        except FreshvecError as error:
            if options.devices:
                raise
            report.left_out.append(f"{precision} on {device} is left out: {error}")
    for device in dict.fromkeys(contender.device for contender in report.contenders):
        for name in options.baselines:
            step(f"{name} on {device}: loading it")
            try:
                report.contenders.append(_theirs(report.artefact, name, device, report.tokens))
            except FreshvecError as error:
                report.left_out.append(f"{name} on {device} is left out: {error}")
    refusal = openvino_session.refusal()
    if refusal is not None and multiplies_bf16():
        report.left_out.append(f"bf16 on cpu is left out: {refusal.problem}. {refusal.remedy}")


def _is_quick(artefact: Artefact) -> bool:
    """Whether nanotoken makes the model's tokens in the daemon."""
    return Trials(artefact.folder.parent).is_quick(artefact)


def _without_quick_tokens() -> str:
    """Why it does not."""
    if package := quick_tokens.installed():
        return f"{package} is left out: it does not make this model's tokens."
    return (
        "nanotoken is left out: it is not installed. It makes the tokens of WordPiece models many times as "
        "fast: pip install 'freshvec[nanotoken]'."
    )


def steps(artefact: Artefact, options: Options) -> int:
    """How many steps `run` will report."""
    ours = lineup(artefact, options.devices)
    theirs = len({device for _, device in ours}) * len(options.baselines)
    return (len(ours) + theirs + 1) * (options.rounds + 1) + 1


def _ours(
    artefact: Artefact, texts: list[str], precision: Precision, device: str, options: Options
) -> Contender:
    """A graph on a device, at the batch size that is configured or that the daemon's search finds."""
    before = resident_mib()
    is_quick = _is_quick(artefact)  # as the daemon tokenises
    encoder = OnnxEncoder(artefact, device, options.threads, precision=precision, is_quick=is_quick)
    memory = gpu_memory(device)
    guess = options.batch_tokens or first_guess(memory.free if memory else None, precision)
    budget = BatchBudget(guess, fixed=options.batch_tokens is not None)
    settle(encoder, texts, budget, seconds=_SEARCH_SECONDS, passes=_SEARCH_PASSES)
    size, is_settled = budget.settled, budget.fixed or budget.is_settled
    one_pass(encoder, texts[: page_rows(device)], size)
    return Contender(
        precision,
        encoder.device,
        precision,
        lambda rows: one_pass(encoder, rows, size),
        resident_mib() - before,
        size,
        is_settled,
    )


def _theirs(artefact: Artefact, name: Baseline, device: str, tokens: int) -> Contender:
    """A baseline on a device; `tokens` are those of all texts, cut as ours are."""
    before = resident_mib()
    encode_all = open_baseline(name, artefact.card, device)

    def encode(rows: list[str]) -> Pass:
        began = time.perf_counter()
        encode_all(rows)
        return Pass(time.perf_counter() - began, 0.0, len(rows), tokens, tokens)

    return Contender(name, device, "fp32", encode, resident_mib() - before)


def _limits(report: Report, step: Step) -> None:
    """Measure the matrix rate for every precision and device in the report."""
    step("the hardware's limit: matrix multiplication")
    for precision, device in dict.fromkeys(
        (contender.precision, contender.device) for contender in report.contenders
    ):
        rate = matrix_rate(precision, device, report.artefact.card.dimension, report.threads)
        if rate:
            report.limits.setdefault((precision, device), []).append(rate)
