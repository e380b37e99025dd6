"""A toy recogniser that hears loudness: each token is a level of the signal.

Its graph has the front end of wav2vec2 (frames of 400 samples every 320), so
that lengths, seams and padding behave as in a real one, and what it must
answer is known beforehand.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from s3router.formats.bundle import Bundle, BundleLanguage
from s3router.formats.tokens_file import save_tokens

HOP, FIELD, STEP = 320, 400, 0.1
TOKENS = ["<blk>", "<unk>", "▁", "a", "b", "c"]


def toy_graph(path: Path, vocabulary: int, input_name: str = "input_values"):
    """Write a graph that takes a frame's middle sample for token * STEP."""
    weights = {
        "kernel": np.eye(1, FIELD, FIELD // 2, np.float32)[None],
        "levels": (np.arange(vocabulary) * STEP)[None, None].astype("f4"),
        "axis": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Unsqueeze", [input_name, "axis"], ["row"]),
        helper.make_node("Conv", ["row", "kernel"], ["middle"], strides=[HOP]),
        helper.make_node("Transpose", ["middle"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("Sub", ["frames", "levels"], ["off"]),
        helper.make_node("Mul", ["off", "off"], ["square"]),
        helper.make_node("Neg", ["square"], ["logits"]),
    ]
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(input_name, 1, ["N", "S"])],
        [
            helper.make_tensor_value_info(
                "logits", TensorProto.FLOAT, ["N", "T", vocabulary]
            )
        ],
        [numpy_helper.from_array(v, k) for k, v in weights.items()],
    )
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.save(model, path)


def make_toy_bundle(
    folder: Path,
    languages: dict[str, list[str]] | None = None,
    **settings: object,
) -> Path:
    """Write a bundle of toy graphs; `languages` maps codes to tokens."""
    entries = {}
    for code, tokens in (languages or {"xx": TOKENS}).items():
        toy_graph(folder / code / "model.onnx", len(tokens))
        save_tokens(folder / code / "tokens.txt", tokens)
        files = [f"{code}/model.onnx", f"{code}/tokens.txt"]
        entries[code] = BundleLanguage(*files, files)
    Bundle(
        entries,
        {},
        encoder={"name": "toy", "fingerprint": "sha256:00"},
        normalize=False,
        min_samples=FIELD,
        hop=HOP,
        created_by={"s3router": "0"},
        **settings,
    ).save(folder)
    return folder


def speak(ids: list[int], seconds: float = 0.1) -> np.ndarray:
    """Return the signal that the toy hears as these tokens."""
    samples = int(seconds * 16000)
    levels = np.asarray(ids, dtype=np.float32) * STEP
    return np.repeat(levels, samples)
