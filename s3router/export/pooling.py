"""Tasks that classify, in graphs that are traced for CTC.

The head is linear, so that the mean of the frames' logits is what the head
makes of the mean of the frames. One graph then serves all tasks over one
backbone: those that classify have one more node at the end.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from s3router.errors import VerificationError
from s3router.export.fold import FoldedModel
from s3router.export.graph import constant, onnx_ir
from s3router.models.heads import ClassificationHead, CTCHead
from s3router.runtime.recognizer import Recognizer


def framewise(model: FoldedModel) -> FoldedModel:
    """Return a model whose output is a row of logits for each frame.

    Arguments
    ---------
    model : FoldedModel
        Of any task.

    Returns
    -------
    FoldedModel
        With a CTC head of the same weights; the model itself where it has one.
    """
    if not isinstance(model.head, ClassificationHead):
        return model
    head = CTCHead.from_numpy(model.head.to_numpy())
    return FoldedModel(model.encoder, head.requires_grad_(False))


def pool_frames(model: Any) -> None:
    """Let a graph give the mean over frames of what it gave before.

    Arguments
    ---------
    model : onnx_ir.Model
        Changed in place: with logits (N, frames, classes), then (N, classes).
    """
    ir = onnx_ir()
    graph = model.graph
    output = graph.outputs[0]
    axis = constant(graph, "s3router.frames_axis", np.array([1]))
    node = ir.node("ReduceMean", [output, axis], {"keepdims": 0})
    node.name = "s3router.pool"
    pooled = node.outputs[0]
    name, output.name = output.name, "s3router.frame_logits"
    pooled.name, pooled.dtype = name, output.dtype
    pooled.shape = ir.Shape([output.shape[0], output.shape[-1]])
    graph.outputs[0] = pooled
    graph.append(node)


def check_label(
    classes: Sequence[str],
    recognizer: Recognizer,
    clip: np.ndarray,
    logits: np.ndarray,
) -> None:
    """Verify that the recogniser says what torch says of a clip.

    Arguments
    ---------
    classes : sequence of str
        Their names.
    recognizer : Recognizer
        On the bundle, switched to the task.
    clip : np.ndarray
        (samples,) float32; one that would be cut into pieces is not compared.
    logits : np.ndarray
        (classes,), torch's.

    Raises
    ------
    VerificationError
        If the labels differ.
    """
    if len(clip) > recognizer.chunk_seconds * recognizer.bundle.sample_rate:
        return
    label = classes[int(logits.argmax())]
    got = recognizer.classify(clip).label
    if got != label:
        raise VerificationError(
            f"{recognizer.language}: torch says {label!r}, onnxruntime "
            f"{got!r}, of a clip of {len(clip)} samples"
        )
