"""The results of a benchmark, and the arithmetic of shares and ratios."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from freshvec.bench.matrix_rate import MatrixRate
from freshvec.bench.texts import Texts
from freshvec.bench.throughput import Pass
from freshvec.models.artefact import Artefact, Precision


@dataclass
class Contender:
    """One graph, or one other library, on a device. `encode` goes once through the texts, in each round."""

    name: str
    device: str
    precision: Precision
    encode: Callable[[list[str]], Pass]
    memory_mib: float  # what loading it and its first passes added to the process
    batch_tokens: int | None = None  # padded tokens; None: another library, which has a size of its own
    settled: bool = True  # the search for the batch size had ended
    passes: list[Pass] = field(default_factory=list)  # one per round

    @property
    def is_ours(self) -> bool:
        """Whether it is a graph of freshvec."""
        return self.batch_tokens is not None

    def median(self, figure: Callable[[Pass], float]) -> float:
        """The median of a figure over the rounds."""
        return statistics.median(map(figure, self.passes))


@dataclass
class Report:
    """All that was measured. `limits` holds one rate more than there are rounds: before and after each."""

    artefact: Artefact
    texts: Texts
    threads: int
    tokens: int  # of all texts, cut at the model's limit
    truncated: int  # texts that were cut
    contenders: list[Contender] = field(default_factory=list)
    limits: dict[tuple[Precision, str], list[MatrixRate]] = field(default_factory=dict)
    # By package and number of processes: tokens per second.
    tokenizing: dict[tuple[str, int], list[float]] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)

    def limit(self, contender: Contender) -> MatrixRate | None:
        """The best rate in the whole run, None where it is not known."""
        return max(
            self.limits.get((contender.precision, contender.device), ()),
            key=lambda rate: rate.flops,
            default=None,
        )

    def share(
        self, contender: Contender, figure: Callable[[Pass], float] = lambda one: one.tokens_per_second
    ) -> float | None:
        """Median share of the limit, None where the limit or the FLOPs per token are not known."""
        rates = [rate.flops for rate in self.limits.get((contender.precision, contender.device), ())]
        if not rates or not self.artefact.flops_per_token:
            return None
        return statistics.median(
            shares([figure(one) for one in contender.passes], rates, self.artefact.flops_per_token)
        )

    def ratios(self, contender: Contender) -> dict[str, float]:
        """How many times as fast as each other library on the same device; empty for such a library."""
        others = [
            other for other in self.contenders if not other.is_ours and other.device == contender.device
        ]
        return (
            {other.name: ratio(contender.passes, other.passes) for other in others}
            if contender.is_ours
            else {}
        )

    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        notes = list(self.left_out)
        for contender in self.contenders:
            where = f"{contender.name} on {contender.device}"
            if not contender.settled:
                notes.append(f"{where}: the search for the batch size had not settled; more --rows let it.")
            if (share := self.share(contender)) is not None and share > 1:
                notes.append(
                    f"{where} ran at {share:.0%} of its limit, so that was not the limit: no library here "
                    "multiplies as fast as the graph does, or the machine changed its speed meanwhile."
                )
            if self.limit(contender) is None:
                notes.append(
                    f"{where}: its limit is not known; with the packages onnx or torch it would be measured."
                )
        if not self.artefact.flops_per_token:
            again = f"freshvec export {self.artefact.card.name}"
            notes.append(f"Shares of the limit need FLOPs per token: run `{again}` again.")
        return notes

    def json(self) -> dict[str, Any]:
        """Everything, every round included: seconds, FLOP/s, MiB, shares from 0 to 1."""
        return {
            "model": self.artefact.card.name,
            "flops_per_token": self.artefact.flops_per_token or None,
            "threads": self.threads,
            "texts": {
                "origin": self.texts.origin,
                "count": len(self.texts.rows),
                "tokens": self.tokens,
                "truncated": self.truncated,
            },
            "limits": [
                {"precision": precision, "device": device, "rounds": [asdict(rate) for rate in rates]}
                for (precision, device), rates in self.limits.items()
            ],
            "tokenizing": [
                {"package": package, "processes": count, "tokens_per_second": rates}
                for (package, count), rates in self.tokenizing.items()
            ],
            "results": [self._result(contender) for contender in self.contenders],
            "notes": self.notes(),
        }

    def _result(self, contender: Contender) -> dict[str, Any]:
        ours = contender.is_ours
        return {
            "name": contender.name,
            "device": contender.device,
            "precision": contender.precision,
            "tokens_per_second": contender.median(lambda one: one.tokens_per_second),
            "texts_per_second": contender.median(lambda one: one.texts_per_second),
            "encoded_tokens_per_second": contender.median(lambda one: one.encoded_per_second)
            if ours
            else None,
            "share_of_limit": self.share(contender),
            "padding": contender.median(lambda one: one.waste) if ours else None,
            "batch_tokens": contender.batch_tokens,
            "batch_settled": contender.settled if ours else None,
            "memory_mib": contender.memory_mib,
            "times_as_fast_as": self.ratios(contender),
            "rounds": [asdict(one) for one in contender.passes],
        }


def shares(tokens_per_second: Sequence[float], rates: Sequence[float], flops: int) -> list[float]:
    """Each round's share, from 0 to 1, of the better of the two matrix rates measured before and after it.

    `rates` are in operations per second, one more than there are rounds; `flops` are operations per token.
    """
    return [rate * flops / max(rates[i], rates[i + 1]) for i, rate in enumerate(tokens_per_second)]


def ratio(ours: Sequence[Pass], theirs: Sequence[Pass]) -> float:
    """How many times as fast ours is: the median of the rounds."""
    return statistics.median(their.seconds / our.seconds for our, their in zip(ours, theirs, strict=True))
