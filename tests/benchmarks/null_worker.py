"""A worker without a model as a process of its own: `python -m tests.benchmarks.null_worker URL [wide]
[share] [device] [N]`.

With a number it keeps that many tables t0, t1, …; else `docs`. It sweeps as often as `freshvec run` does.
With `device` a batch takes as long as on a device of its own that encodes 1,000 rows per second: it costs no
processor.
"""

import sys
import tempfile
import time
from pathlib import Path

from freshvec.records import Tokens, Vector
from freshvec.worker.worker import Worker
from tests.benchmarks.harness import WideNullEncoder
from tests.support import NullEncoder, settings_for, sync_of

DEVICE_ROWS = 1000  # per second


class DeviceEncoder(NullEncoder):
    """As quick as a device that is always as quick."""

    def encode(self, batch: list[Tokens]) -> Vector:
        time.sleep(len(batch) / DEVICE_ROWS)
        return super().encode(batch)


def main(url: str, options: list[str]) -> None:
    tables = next((int(option) for option in options if option.isdigit()), 0)
    syncs = [sync_of(f"t{place}", f"t{place}") for place in range(tables)] or [sync_of("docs")]
    with tempfile.TemporaryDirectory() as folder:  # where it keeps what it learns of the null encoder's speed
        daemon = {"models_dir": Path(folder), "batch_tokens": 8192, "sweep_seconds": 30.0}
        settings = settings_for(url, *syncs, **daemon, share="share" in options)
        kinds = {"wide": WideNullEncoder, "device": DeviceEncoder}
        encoder = next((kinds[option]() for option in options if option in kinds), NullEncoder())
        service = Worker(settings, settings.sync, load=lambda _: encoder)
        service.handle_signals()
        service.run()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
