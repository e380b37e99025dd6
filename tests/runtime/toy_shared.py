"""A toy bundle of layout "shared", whose logits a line of numpy gives.

The middle sample of a frame goes, `WIDTH` times, through one masked layer and
a head; so each language answers otherwise, and a mixture of two as neither.
"""

import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from toy_bundles import FIELD, HOP

from s3router.formats.bundle import Bundle, BundleLanguage
from s3router.formats.tokens_file import save_tokens
from s3router.runtime.switch import PLACES

PAGE = 4096
LAYER = "layer"


def make_shared_bundle(
    folder: Path, languages: dict[str, int], width: int = 40
) -> dict[str, dict[str, np.ndarray]]:
    """Write a bundle; `languages` maps codes to sizes of vocabularies.

    Returns weights, masks and heads, by language.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((width, width)).astype("f4")
    (folder / "backbone.bin").write_bytes(bytes(PAGE) + weight.tobytes())
    entries, places, truth = {}, {}, {}
    for code, vocabulary in languages.items():
        own = {
            "weight": weight,
            "mask": rng.random(weight.shape) < 0.5,
            "head.weight": rng.standard_normal((width, vocabulary)),
            "head.bias": rng.standard_normal(vocabulary),
        }
        truth[code] = own
        places[code] = _language(folder / f"{code}.onnx", own)
        tokens = ["<blk>", "<unk>", *map(chr, range(97, 95 + vocabulary))]
        save_tokens(folder / f"{code}.tokens.txt", tokens)
        names = [f"{code}.onnx", "backbone.bin", f"{code}.tokens.txt"]
        entries[code] = BundleLanguage(names[0], names[2], names)
    _runner(folder, weight.shape, places)
    Bundle(
        entries,
        {},
        normalize=False,
        min_samples=FIELD,
        hop=HOP,
        layout="shared",
        runner="runner.onnx",
    ).save(folder)
    return truth


def toy_logits(own: dict[str, np.ndarray], samples: np.ndarray) -> np.ndarray:
    """Return what a language must answer, (frames, tokens)."""
    starts = range(0, len(samples) - FIELD + 1, HOP)
    middle = np.array([samples[s + FIELD // 2] for s in starts])
    weight = np.where(own["mask"], own["weight"], 0)
    hidden = np.repeat(middle[:, None], len(weight), 1) @ weight
    return hidden @ own["head.weight"] + own["head.bias"]


def _language(path: Path, own: dict[str, np.ndarray]) -> dict[str, list[int]]:
    """Write the graph of a language; return where its masks and head lie."""
    shape = own["mask"].shape
    stored = {
        f"{LAYER}.mask_bits": np.packbits(own["mask"], bitorder="little"),
        "head.weight": own["head.weight"].astype("f4"),
        "head.bias": own["head.bias"].astype("f4"),
    }
    values = np.arange(256, dtype=np.uint8)[:, None]
    table = np.unpackbits(values, axis=1, bitorder="little").astype(bool)
    constants = {"table": table, "shape": np.array(shape), "zero": np.zeros(())}
    constants["zero"] = constants["zero"].astype("f4")
    unpack = [
        helper.make_node("Cast", [f"{LAYER}.mask_bits"], ["index"], to=6),
        helper.make_node("Gather", ["table", "index"], ["rows"]),
        helper.make_node("Reshape", ["rows", "shape"], ["keep"]),
        helper.make_node("Where", ["keep", f"{LAYER}.weight", "zero"], ["w"]),
    ]
    vocabulary = len(own["head.bias"])
    _save(path, unpack, "w", {**stored, **constants}, vocabulary, shape)
    content = path.read_bytes()
    return {
        name: [content.index(value.tobytes()), *value.shape]
        for name, value in stored.items()
    }


def _runner(folder: Path, shape: tuple[int, int], places: dict) -> None:
    inputs = {
        f"{LAYER}.weight": list(shape),
        "head.weight": [shape[1], "tokens"],
        "head.bias": ["tokens"],
    }
    said = {
        "backbone": "backbone.bin",
        "weights": {f"{LAYER}.weight": PAGE},
        "languages": places,
    }
    _save(
        folder / "runner.onnx",
        *([], f"{LAYER}.weight", {}, "tokens", shape),
        inputs,
        {PLACES: json.dumps(said)},
    )


def _save(
    path: Path,
    nodes: list,
    weight: str,
    constants: dict[str, np.ndarray],
    vocabulary: int | str,
    shape: tuple[int, int],
    inputs: dict[str, list] | None = None,
    metadata: dict[str, str] | None = None,
) -> None:
    """Write a graph, with `weight` as the name of the masked layer."""
    constants = {
        **constants,
        "kernel": np.eye(1, FIELD, FIELD // 2, np.float32)[None],
        "axis": np.array([1]),
        "times": np.array([1, 1, shape[0]]),
    }
    nodes = [
        *nodes,
        helper.make_node("Unsqueeze", ["input_values", "axis"], ["row"]),
        helper.make_node("Conv", ["row", "kernel"], ["middle"], strides=[HOP]),
        helper.make_node("Transpose", ["middle"], ["frames"], perm=[0, 2, 1]),
        helper.make_node("Tile", ["frames", "times"], ["wide"]),
        helper.make_node("MatMul", ["wide", weight], ["hidden"]),
        helper.make_node("MatMul", ["hidden", "head.weight"], ["plain"]),
        helper.make_node("Add", ["plain", "head.bias"], ["logits"]),
    ]
    free = {"input_values": ["N", "S"], **(inputs or {})}
    graph = helper.make_graph(
        nodes,
        "toy",
        [helper.make_tensor_value_info(k, 1, v) for k, v in free.items()],
        [helper.make_tensor_value_info("logits", 1, ["N", "T", vocabulary])],
        [numpy_helper.from_array(v, k) for k, v in constants.items()],
    )
    if inputs is None:
        outside = TensorProto(name=f"{LAYER}.weight", data_type=1, dims=shape)
        outside.data_location = TensorProto.EXTERNAL
        size = 4 * shape[0] * shape[1]
        for key, value in (("offset", PAGE), ("length", size)):
            outside.external_data.add(key=key, value=str(value))
        outside.external_data.add(key="location", value="backbone.bin")
        graph.initializer.append(outside)
    opset = helper.make_opsetid("", 20)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=9)
    helper.set_model_props(model, metadata or {})
    onnx.save(model, path)
