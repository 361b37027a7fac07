"""`freshvec bench` held to bars: our encoder beside sentence-transformers and the processor's limit."""

from loguru import logger

from freshvec.bench import measure
from freshvec.bench.baselines import Baseline
from freshvec.bench.report import ratio
from freshvec.bench.texts import Texts
from freshvec.bench.throughput import tokenizing_rates
from freshvec.encoding import quick_tokens
from freshvec.encoding.machine import cpu_limit
from freshvec.encoding.tokenizer_pool import pool_processes
from freshvec.encoding.trial import Trials
from tests.benchmarks.harness import Report, median, one_line_texts, texts
from tests.exports import exported
from tests.support import MODEL, models_in

BASELINE: Baseline = "sentence-transformers"


def reference(report: Report, quick: bool) -> None:
    """Everything in turns in one run, median of three, sentence-transformers with its defaults."""
    artefact = models_in(exported()).artefact(MODEL)
    options = measure.Options(devices=("cpu",), baselines=(BASELINE,), rounds=1 if quick else 3)
    count = 200 if quick else 1000
    for name, rows, least_ratio, least_share, least_in_bf16 in (
        ("docstrings", texts(count), 1.9, 0.85, 5.0),
        ("one-line texts", one_line_texts(count * 2), 1.4, 0.78, 2.0),
    ):
        found = measure.run(artefact, Texts(name, rows), options, lambda step: logger.debug("{}", step))
        graphs = {contender.name: contender for contender in found.contenders}
        fp32 = graphs["fp32"]
        report.add(f"{name}: our encoder", fp32.median(lambda one: one.texts_per_second), "texts/s")
        report.add(
            f"{name}: batch",
            fp32.batch_tokens or 0,
            "padded tokens" if fp32.settled else "padded tokens, not settled",
        )
        report.at_least(f"{name}: against {BASELINE}", found.ratios(fp32)[BASELINE], least_ratio, "×")
        report.at_least(f"{name}: share of the fp32 matrix rate", found.share(fp32) or 0.0, least_share)
        report.at_most(f"{name}: padding", fp32.median(lambda one: one.waste) * 100, 3.0, "%")
        if "bf16" in graphs:
            bf16 = graphs["bf16"]
            report.at_least(f"{name}: bf16 against fp32", ratio(bf16.passes, fp32.passes), 3.0, "×")
            report.at_least(
                f"{name}: bf16 against {BASELINE}", found.ratios(bf16)[BASELINE], least_in_bf16, "×"
            )
            report.add(f"{name}: share of the bf16 matrix rate", found.share(bf16) or 0.0, "")
            report.add(f"{name}: batch in bf16", bf16.batch_tokens or 0, "padded tokens")
        if "int8" in graphs:
            report.at_least(
                f"{name}: int8 against fp32", ratio(graphs["int8"].passes, fp32.passes), 1.25, "×"
            )
    # On few cores the daemon has no pool; a small one shows what the way to another process costs.
    nanotoken = quick_tokens.installed() if Trials(artefact.folder.parent).is_quick(artefact) else None
    processes = pool_processes(cpu_limit()) or 2
    rates = tokenizing_rates(artefact, texts(count), options.rounds, processes, nanotoken)
    for (package, used), measured in rates.items():
        name = f"tokenising, {package}, {used} process{'es' * (used > 1)}"
        report.add(name, median(measured), "tokens/s")
    if nanotoken is None:
        print("nanotoken is not measured: pip install 'freshvec[nanotoken]'")
