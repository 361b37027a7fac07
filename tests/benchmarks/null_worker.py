"""A worker without a model as a process of its own: `python -m tests.benchmarks.null_worker URL [wide]`."""

import sys
import tempfile
from pathlib import Path

from freshvec.worker.worker import Worker
from tests.benchmarks.harness import WideNullEncoder
from tests.support import NullEncoder, settings_for, sync_of


def main(url: str, wide: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:  # where it keeps what it learns of the null encoder's speed
        settings = settings_for(url, sync_of("docs"), models_dir=Path(folder), batch_tokens=8192)
        encoder = WideNullEncoder() if wide else NullEncoder()
        service = Worker(settings, settings.sync, load=lambda _: encoder)
        service.handle_signals()
        service.run()


if __name__ == "__main__":
    main(sys.argv[1], "wide" in sys.argv[2:])
