"""What a cost shows: rows, a histogram of the texts' lengths, time, log and disk."""

from collections.abc import Iterator

from freshvec.cli.amounts import duration, size
from freshvec.schema.cost import Cost

_BAR = 30  # columns of a bar that stands for every text


def lines(cost: Cost) -> Iterator[str]:
    """The cost in lines of at most 78 columns."""
    sampled = "" if cost.sampled == cost.rows else f"; by a sample of {cost.sampled:,} rows"
    yield f"rows       {cost.rows:,}, {cost.texts:,} of them with a text{sampled}"
    if not cost.lengths:
        yield "           no text was found in the sample, so nothing can be estimated"
        return
    yield f"to encode  {cost.again:,} rows, about {count(cost.tokens)} tokens{_time(cost)}"
    yield (
        f"tokens     half of the texts have at most {cost.longest(0.5):,}, 95% at most {cost.longest(0.95):,}"
    )
    for low, top, share in cost.histogram():
        is_cut = low >= cost.max_tokens and cost.passages is None
        label = f"> {low:,}" if is_cut else f"≤ {top:,}"
        note = f"  cut: the model reads {cost.max_tokens:,}" if is_cut else ""
        yield f"           {label:>8} {share:>4.0%} {'█' * round(share * _BAR)}{note}".rstrip()
    if cost.passages is not None:
        yield f"passages   about {count(cost.texts * cost.passages)}, {cost.passages:.1f} a text"
    elif cost.cut:
        yield f'           chunk = "auto" would give the {cost.cut:.0%} that are cut a vector per passage'
    yield f"disk       vectors {size(cost.vector_bytes)}"
    if cost.rewritten_bytes:
        yield f"           {size(cost.rewritten_bytes)} of rows written anew, until vacuum takes the old ones"
    if cost.index_bytes is None:
        yield "           no index is possible on real[]"
    else:
        about = f"{size(cost.index_bytes)}, built in about {duration(max(cost.index_seconds or 0, 1))}"
        article = "a" if cost.index.startswith("b") else "an"
        yield f"           {article} {cost.index} index on them: {about} on two cores"
    yield f"WAL        {size(cost.wal_bytes)} while they are written"


def short(cost: Cost) -> str:
    """The cost in one line."""
    cut = f", {cost.cut:.0%} cut at {cost.max_tokens}" if cost.cut else ""
    time = "" if cost.seconds is None else f"; about {duration(cost.seconds)}"
    length = f"{cost.longest(0.5):,} tokens each (median){cut}"
    return f"{length}{time}, {size(cost.vector_bytes)} of vectors"


def _time(cost: Cost) -> str:
    if cost.seconds is None or cost.rate is None:
        return ""
    return f": {duration(max(cost.seconds, 1))} here ({count(cost.rate)} tokens/s)"


def count(number: float) -> str:
    """A large number in short."""
    for unit, one in (("billion", 1e9), ("million", 1e6)):
        if number >= one:
            return f"{number / one:.3g} {unit}"
    return f"{number:,.0f}"
