"""One ONNX Runtime session: a batch through a graph on a device."""

import queue
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from freshvec.encoding import providers
from freshvec.encoding.batching import flat, padded
from freshvec.encoding.machine import cpu_limit
from freshvec.models.artefact import Precision
from freshvec.records import OutOfMemoryError, Tokens, Vector

if TYPE_CHECKING:
    import onnxruntime

# ONNX Runtime has no class of its own for this error, so its messages decide. They are matched whole: a
# message that only looks alike would halve a batch that can never succeed.
_NO_ROOM = re.compile(
    r"Failed to allocate memory for requested buffer of size \d+"
    r"|Available memory of \d+ is smaller than requested bytes of \d+"  # gpu_mem_limit is reached
    r"|CUDA failure 2: out of memory"
    r"|\bCUBLAS_STATUS_ALLOC_FAILED\b"
    r"|\bCUDNN_STATUS_ALLOC_FAILED\b"
    r"|\bCUDNN_STATUS_INTERNAL_ERROR_(?:HOST|DEVICE)_ALLOCATION_FAILED\b"
    r"|\bstd::bad_alloc\b"
)
_LENGTH_STEP = 16  # on a GPU lengths are rounded up to this: few shapes keep the memory arena small
OUTPUT = "sentence_embedding"
LANES = 2  # batches under way on a GPU: while one is computed, the next is padded and copied


def out_of_memory(error: Exception) -> bool:
    """Whether a runtime's error says that a batch did not fit into memory."""
    return isinstance(error, MemoryError) or _NO_ROOM.search(str(error)) is not None


class Session(Protocol):
    """A graph on a device, whichever library runs it."""

    @property
    def device(self) -> str: ...

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`, perhaps not finite. Raises OutOfMemoryError."""
        ...


class OnnxSession:
    """A graph loaded on a device. `device` is what was read back from the session, not what was asked for.

    `threads` are the CPU's, None for every core the process may use; `memory_limit` is in bytes of a GPU;
    `precision` is the graph's.
    Raises what onnxruntime raises when the device fails; a missing library shows in `device` alone.
    """

    def __init__(
        self,
        path: Path,
        pad_id: int,
        device: str = "cpu",
        threads: int | None = None,
        memory_limit: int | None = None,
        precision: Precision = "fp32",
    ) -> None:
        ort = providers.runtime()
        providers.preload(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_limit()
        # Threads that spin while they wait are 3 to 20% faster on a machine of their own, at the expense of
        # Postgres beside them: with another process as busy as this one they halve the rate of both.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # every error comes as an exception too
        options.enable_mem_pattern = False  # a pattern would be kept for every shape, and ours vary
        self.inference: onnxruntime.InferenceSession = ort.InferenceSession(
            str(path),
            options,
            providers=providers.provider_options(device, memory_limit, path.parent, precision),
            # Its own fallback would print, and continue with the fp16 graph on the CPU.
            enable_fallback=0,
            disabled_optimizers=providers.disabled_optimizers(device),
        )
        self._inputs = {entry.name for entry in self.inference.get_inputs()}
        self._pad_id = pad_id
        self.device = providers.device_of(self.inference, device)
        self._step = 1 if self.device == "cpu" else _LENGTH_STEP
        self.buffers = [InputBuffers(*providers.memory_place(self.device)) for _ in range(LANES)]
        self._free: queue.LifoQueue[InputBuffers] = queue.LifoQueue()
        for buffers in self.buffers:
            self._free.put(buffers)
        self.shrinking = ort.RunOptions()
        self.shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", _arena(self.device))
        self.shrinks_next = False  # whether the next run gives unused memory back: after an OutOfMemoryError

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`, perhaps not finite. Raises OutOfMemoryError."""
        # After a failure the arena is full of pieces for batches of sizes that will not come again.
        options, self.shrinks_next = (self.shrinking if self.shrinks_next else None), False
        try:
            feed = self.feed(batch)
            if self.device == "cpu":
                vectors: Vector = self.inference.run([OUTPUT], feed, options)[0]
                return vectors
            return self.run_bound(feed, options)
        except Exception as error:
            if out_of_memory(error):
                self.shrinks_next = True
                raise OutOfMemoryError(str(error)[-200:]) from error
            raise

    def feed(self, batch: list[Tokens]) -> dict[str, NDArray[Any]]:
        """The graph's inputs by name: as `flat` makes them if it wants packed tokens, else int64
        `[len(batch), longest]`."""
        if "token_offset" in self._inputs:
            return {name: values for name, values in flat(batch).items() if name in self._inputs}
        ids, mask = padded(batch, self._pad_id, self._step)
        given = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = np.zeros_like(ids)
        return given

    def run_bound(self, feed: dict[str, NDArray[Any]], options: Any = None) -> Vector:
        """The embeddings of a `feed`, through buffers that are kept: one copy in, one small copy out."""
        binding = self.inference.io_binding()
        buffers = self._free.get()  # a search that comes while every lane is taken waits for one
        try:
            for name, values in feed.items():
                buffers.bind(binding, name, values)
            binding.bind_output(OUTPUT, "cpu")
            self.inference.run_with_iobinding(binding, options)
            vectors: Vector = binding.copy_outputs_to_cpu()[0]
        finally:
            self._free.put(buffers)
        return vectors


class InputBuffers:
    """Memory on a device for a batch's inputs: one buffer per input and power of two of elements, used again.

    onnxruntime fills a tensor in place only when the sizes are equal. So the whole buffer is copied, and the
    graph is bound to its beginning, in the batch's own shape.
    """

    def __init__(self, kind: str, number: int) -> None:
        self._kind = kind
        self._number = number
        self._kept: dict[tuple[str, int], tuple[NDArray[Any], Any]] = {}

    def __len__(self) -> int:
        """How many buffers are allocated."""
        return len(self._kept)

    def bind(self, binding: Any, name: str, values: NDArray[Any]) -> None:
        """Copy `values` to the device and bind them as the graph's input `name`, which has always their
        type."""
        kind = values.dtype.type
        size = 1 << (values.size - 1).bit_length()
        if (name, size) not in self._kept:
            there = providers.runtime().OrtValue.ortvalue_from_shape_and_type(
                [size], kind, self._kind, self._number
            )
            self._kept[name, size] = np.zeros(size, dtype=kind), there
        here, there = self._kept[name, size]
        here[: values.size] = values.ravel()
        there.update_inplace(here)
        binding.bind_input(name, self._kind, self._number, kind, list(values.shape), there.data_ptr())


def _arena(device: str) -> str:
    """The memory arena to shrink, as onnxruntime names it."""
    kind, number = providers.memory_place(device)
    return f"{'cpu' if kind == 'cpu' else 'gpu'}:{number}"
