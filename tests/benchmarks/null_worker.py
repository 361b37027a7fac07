"""A worker without a model as a process of its own: `python -m tests.benchmarks.null_worker URL [wide]
[share] [N]`.

With a number it keeps that many tables t0, t1, …; else `docs`. It sweeps as often as `freshvec run` does.
"""

import sys
import tempfile
from pathlib import Path

from freshvec.worker.worker import Worker
from tests.benchmarks.harness import WideNullEncoder
from tests.support import NullEncoder, settings_for, sync_of


def main(url: str, wide: bool, share: bool, tables: int) -> None:
    syncs = [sync_of(f"t{place}", f"t{place}") for place in range(tables)] or [sync_of("docs")]
    with tempfile.TemporaryDirectory() as folder:  # where it keeps what it learns of the null encoder's speed
        settings = settings_for(
            url, *syncs, models_dir=Path(folder), batch_tokens=8192, sweep_seconds=30.0, share=share
        )
        encoder = WideNullEncoder() if wide else NullEncoder()
        service = Worker(settings, settings.sync, load=lambda _: encoder)
        service.handle_signals()
        service.run()


if __name__ == "__main__":
    options = sys.argv[2:]
    main(
        sys.argv[1],
        "wide" in options,
        "share" in options,
        next((int(option) for option in options if option.isdigit()), 0),
    )
