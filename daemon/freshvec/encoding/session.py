"""One ONNX Runtime session: a batch through a graph on a device."""

import re
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from freshvec.encoding import providers
from freshvec.encoding.batching import padded
from freshvec.encoding.machine import cpu_limit
from freshvec.records import OutOfMemoryError, Tokens, Vector

if TYPE_CHECKING:
    import onnxruntime

# ONNX Runtime has no class of its own for this error, so its words must do: whole ones, for a message that only
# looks alike would have a batch halved that never can succeed.
_OUT_OF_MEMORY = re.compile(
    r"Failed to allocate memory for requested buffer of size \d+"
    r"|Available memory of \d+ is smaller than requested bytes of \d+"  # gpu_mem_limit is reached
    r"|CUDA failure 2: out of memory"
    r"|\bCUBLAS_STATUS_ALLOC_FAILED\b"
    r"|\bCUDNN_STATUS_ALLOC_FAILED\b"
    r"|\bCUDNN_STATUS_INTERNAL_ERROR_(?:HOST|DEVICE)_ALLOCATION_FAILED\b"
    r"|\bstd::bad_alloc\b"
)
_LENGTH_STEP = 16  # lengths on a GPU are rounded up to this: few shapes, so that the memory arena stays small
_OUTPUT = "sentence_embedding"


class OnnxSession:
    """A graph loaded on a device. `device` is what was read back from the session, not what was asked for.

    Raises what onnxruntime raises when the device fails; a missing library only shows in `device`.
    """

    def __init__(
        self,
        path: Path,
        pad_id: int,
        device: str = "cpu",
        threads: int | None = None,
        memory_limit: int | None = None,
    ) -> None:
        ort = providers.runtime()
        providers.preload(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or cpu_limit()
        # Threads that spin while they wait are 3 to 20% quicker on a machine of their own, and take it from Postgres beside
        # them: with another process as busy they halve the rate of both.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 4  # what it has to say comes as an exception too
        options.enable_mem_pattern = False  # patterns are kept for every shape; ours vary
        self._session: onnxruntime.InferenceSession = ort.InferenceSession(
            str(path),
            options,
            providers=providers.provider_options(device, memory_limit, path.parent),
            # Its own fallback would print, and go on with the fp16 graph on the CPU.
            enable_fallback=0,
            # On a CPU the fused kernel takes five times what LayerNormalization and Add take; a GPU's is quick.
            disabled_optimizers=["SkipLayerNormFusion"] if device == "cpu" else None,
        )
        self._inputs = {entry.name for entry in self._session.get_inputs()}
        self._pad_id = pad_id
        self.device = providers.device_of(self._session, device)
        self._step = 1 if self.device == "cpu" else _LENGTH_STEP
        self._buffers = InputBuffers(*providers.memory_place(self.device))
        self._one_at_a_time = threading.Lock()
        self._shrinking = ort.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", _arena(self.device))
        self._shrink = False

    def run(self, batch: list[Tokens]) -> Vector:
        """Embeddings, float32 `[len(batch), dimension]`; not checked for being finite. Raises OutOfMemoryError."""
        # After a failure the arena is full of pieces for batches that will not come again.
        options, self._shrink = (self._shrinking if self._shrink else None), False
        try:
            feed = self.feed(batch)
            if self.device == "cpu":
                vectors: Vector = self._session.run([_OUTPUT], feed, options)[0]
                return vectors
            return self.run_bound(feed, options)
        except Exception as error:
            if isinstance(error, MemoryError) or _OUT_OF_MEMORY.search(str(error)):
                self._shrink = True
                raise OutOfMemoryError(str(error)[-200:]) from error
            raise

    def feed(self, batch: list[Tokens]) -> dict[str, NDArray[np.int64]]:
        """The graph's inputs by name, int64 `[len(batch), longest]`."""
        ids, mask = padded(batch, self._pad_id, self._step)
        given = {"input_ids": ids, "attention_mask": mask}
        if "token_type_ids" in self._inputs:
            given["token_type_ids"] = np.zeros_like(ids)
        return given

    def run_bound(self, feed: dict[str, NDArray[np.int64]], options: Any = None) -> Vector:
        """The same with inputs in buffers that are kept: one copy in, the device's kernels, one small copy out."""
        binding = self._session.io_binding()
        with (
            self._one_at_a_time
        ):  # a search may come while the pipeline encodes, and the buffers are for one batch
            for name, values in feed.items():
                self._buffers.bind(binding, name, values)
            binding.bind_output(_OUTPUT, "cpu")
            self._session.run_with_iobinding(binding, options)
            vectors: Vector = binding.copy_outputs_to_cpu()[0]
        return vectors


class InputBuffers:
    """Memory on a device for a batch's inputs, allocated once a power of two of elements: few, and used again.

    onnxruntime fills a tensor in place only when the sizes are equal, so the whole buffer is copied, and the graph is
    bound to its beginning in the batch's own shape.
    """

    def __init__(self, kind: str, number: int) -> None:
        self._kind = kind
        self._number = number
        self._kept: dict[tuple[str, int], tuple[NDArray[np.int64], Any]] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def bind(self, binding: Any, name: str, values: NDArray[np.int64]) -> None:
        """Copy `values` to the device and bind them as the graph's input `name`."""
        size = 1 << (values.size - 1).bit_length()
        if (name, size) not in self._kept:
            there = providers.runtime().OrtValue.ortvalue_from_shape_and_type(
                [size], np.int64, self._kind, self._number
            )
            self._kept[name, size] = np.zeros(size, dtype=np.int64), there
        here, there = self._kept[name, size]
        here[: values.size] = values.ravel()
        there.update_inplace(here)
        binding.bind_input(name, self._kind, self._number, np.int64, list(values.shape), there.data_ptr())


def _arena(device: str) -> str:
    """The memory arena to shrink, in onnxruntime's words."""
    kind, number = providers.memory_place(device)
    return f"{'cpu' if kind == 'cpu' else 'gpu'}:{number}"
