"""Tokens packed before they come to the device: the graph's inputs are one row of tokens, and where in the
batch each stands.

RemovePadding finds that out in one thread of the GPU, and the embeddings before it are made for the padding,
too. The inputs are what `encoding.batching.flat` makes.
"""

from typing import Any

import numpy as np

SHAPES = {
    "input_ids": [1, "tokens"],
    "position_ids": [1, "tokens"],
    "token_offset": ["batch_size", "sequence_length"],
    "cumulative_sequence_length": ["batch_size_and_one"],
    "attention_mask": ["batch_size", "sequence_length"],
}


def flatten(graph: Any) -> bool:
    """Take RemovePadding out of a packed graph. False, and nothing is changed, where its embedding is not a
    node that counts positions from 0, or something else reads the padded inputs."""
    removing = next(node for node in graph.node if node.op_type == "RemovePadding")
    embedding = next((node for node in graph.node if removing.input[0] in node.output), None)
    needed = _needed(graph, removing)
    if embedding is None or not _can_be_flat(graph, embedding) or not _reads_only_mask(graph, needed):
        return False
    if any(removing.output[3] in node.input for node in needed if len(removing.output) > 3):
        return False
    kept = [_copy(node) for node in (*_embedding_of_row(graph, embedding, removing.output[0]), *needed)]
    for old, name in zip(removing.output[1:3], ("token_offset", "cumulative_sequence_length"), strict=True):
        for node in kept:
            node.input[:] = [name if given == old else given for given in node.input]
    del graph.node[:]
    graph.node.extend(kept)
    _declare(graph)
    return True


def _needed(graph: Any, end: Any) -> list[Any]:
    """The nodes between `end` and the graph's outputs, and what else these need, in the graph's order."""
    nodes = list(graph.node)
    makers = {name: place for place, node in enumerate(nodes) for name in node.output if node != end}
    wanted, found = [entry.name for entry in graph.output], set()
    while wanted:
        place = makers.get(wanted.pop())
        if place is not None and place not in found:
            found.add(place)
            wanted.extend(nodes[place].input)
    return [nodes[place] for place in sorted(found)]


def _can_be_flat(graph: Any, embedding: Any) -> bool:
    """Whether it looks up the graph's own ids, of segment 0, at positions that it counts itself."""
    if embedding.op_type != "EmbedLayerNormalization" or any(embedding.input[8:]):
        return False
    ids, segments = (_origin(graph, name) for name in embedding.input[:2])
    return ids == "input_ids" and segments in ("", "token_type_ids")


def _origin(graph: Any, name: str) -> str:
    """The value that was cast, perhaps more than once, to another type."""
    made_by = {node.output[0]: node for node in graph.node if node.op_type == "Cast"}
    while name in made_by:
        name = made_by[name].input[0]
    return name


def _reads_only_mask(graph: Any, nodes: list[Any]) -> bool:
    """Whether nodes read no input of the graph but the mask, to cast it: then it may be of any type."""
    given = {entry.name for entry in graph.input}
    return all(
        name not in given or (name == "attention_mask" and node.op_type == "Cast")
        for node in nodes
        for name in node.input
    )


def _embedding_of_row(graph: Any, embedding: Any, output: str) -> list[Any]:
    """The embedding of `[1, tokens]`, without mask and segments, which are 0, as `[tokens, hidden]`."""
    from onnx import helper, numpy_helper

    made = _copy(embedding)
    word, position, segment, gamma, beta = embedding.input[2:7]
    made.input[:] = ["input_ids", "", word, position, segment, gamma, beta, "", "position_ids"]
    hidden = next(entry.dims[1] for entry in graph.initializer if entry.name == word)
    shape = numpy_helper.from_array(np.array([-1, hidden], dtype=np.int64), f"{embedding.name}_row")
    graph.initializer.append(shape)
    return [
        made,
        helper.make_node("Reshape", [made.output[0], shape.name], [output], f"{embedding.name}_reshape"),
    ]


def _declare(graph: Any) -> None:
    """The inputs that are read, in their types: as the kernels want them, which saves casts and copying."""
    from onnx import TensorProto, helper

    read = {name for node in graph.node for name in node.input}
    del graph.input[:]
    for name, shape in SHAPES.items():
        if name in read:
            kind = TensorProto.BOOL if name == "attention_mask" else TensorProto.INT32
            graph.input.append(helper.make_tensor_value_info(name, kind, shape))


def _copy(node: Any) -> Any:
    made = type(node)()
    made.CopyFrom(node)
    return made
