"""Everything that needs a GPU, in one run: `python -m tests.benchmarks.gpu --models DIR --out FILE [--only
stage …]`."""

import argparse
import json
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.benchmarks.gpu import (
    chip,
    end_to_end,
    fleet,
    flight,
    leaner,
    memory,
    packing,
    right,
    shapes,
    speed,
    whole,
)
from tests.benchmarks.gpu.setting import Setting, machine

STAGES: dict[str, Callable[[Setting], dict[str, Any]]] = {
    "chip": chip.chip,
    "kernels": chip.kernel_times,
    "1-2 cold and warm": shapes.cold_and_warm,
    "3 grid": shapes.grid,
    "4 packing": packing.packing,
    "leaner": leaner.leaner,
    "5 in flight": flight.in_flight,
    "5 tokenising": flight.tokenising,
    "6 CUDA graphs": chip.cuda_graphs,
    "base size": chip.base_size,
    "many shapes": shapes.many_shapes,
    "whole": whole.whole,
    "fleet": fleet.fleet,
    "right": right.right,
    "nodes": right.nodes,
    "overflow": right.overflow,
    "sweep": speed.sweep,
    "tensorrt": speed.tensorrt,
    "tokenising": speed.tokenising,
    "reference": speed.reference,
    "adaptive": speed.adaptive,
    "memory": memory.memory,
    "live": end_to_end.live,
    "backfill": end_to_end.backfill_rows,
}

EXPERIMENTS = list(STAGES)[: list(STAGES).index("fleet") + 1]  # within six minutes on an H100


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", type=Path, required=True, help="where the models were exported to")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--catalogue", type=Path, help="a folder with more model descriptions")
    parser.add_argument("--source", type=Path, help="the model's own files, for torch; default: its package")
    parser.add_argument("--rows", type=int, default=500_000, help="of the backfill")
    parser.add_argument("--texts", type=int, default=100_000, help="of everything else")
    parser.add_argument("--device", default="cuda", help="cpu: to rehearse with few texts")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--only", nargs="*", default=EXPERIMENTS, help=f"of {', '.join(STAGES)}")
    parser.add_argument("--quick", action="store_true", help="as few texts as make every line run")
    parser.add_argument("--base", type=Path, help="an fp16 graph of BERT-base's shape")
    parser.add_argument(
        "--kept-texts", type=Path, help="a folder where texts and tokens are kept for the next process"
    )
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.rows, arguments.texts = min(arguments.rows, 60), min(arguments.texts, 40)
    setting = Setting(arguments)
    found: dict[str, Any] = {"machine": machine(), "model": arguments.model}
    failed = 0
    for name in arguments.only:
        try:
            began = time.perf_counter()
            found[name] = STAGES[name](setting)
            found[name]["took, s"] = time.perf_counter() - began
        except Exception as error:  # one stage must not cost the others: the machine may not come again
            found[name] = {"error": repr(error)}
            traceback.print_exc()
            failed += 1
        print(name, json.dumps(found[name], indent=1), flush=True)
        arguments.out.write_text(json.dumps(found, indent=2) + "\n")
    return int(failed > 0)


if __name__ == "__main__":  # a tokenizer's process imports this module too
    sys.exit(main())
