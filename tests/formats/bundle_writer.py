"""A bundle of layout "shared" with graphs of nothing but masked weights."""

from pathlib import Path

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from s3router.formats.bundle import BACKBONE, Bundle, BundleLanguage
from s3router.formats.files import folder_sizes

# No multiple of eight, nor of 255; one layer of structure, one of one row.
SHAPES = {"a": (64, 96), "b": (101, 47), "c": (1, 7), "d": (40, 80)}


def weights_of(seed=0):
    rng = np.random.default_rng(seed)
    return {
        name: rng.standard_normal(shape).astype(np.float32)
        for name, shape in SHAPES.items()
    }


def masks_of(density, seed):
    """Return random masks; of "d" whole rows are removed."""
    rng = np.random.default_rng(seed)
    masks = {
        name: rng.random(shape) < density for name, shape in SHAPES.items()
    }
    masks["d"] = np.repeat(rng.random(40) < density, 80).reshape(40, 80)
    return masks


def content(folder):
    return {n: (folder / n).read_bytes() for n in folder_sizes(folder)}


def write_bundle(
    folder: Path,
    weights: dict[str, np.ndarray],
    masks: dict[str, dict[str, np.ndarray]],
    scales: dict[str, np.ndarray] | None = None,
) -> Path:
    """Write weights once and the masks of each language, as export does."""
    folder.mkdir()
    places, data = {}, b""
    stored = {f"{k}.weight": v for k, v in weights.items()}
    stored |= {f"{k}.weight_scale": v for k, v in (scales or {}).items()}
    for name, weight in stored.items():
        data += bytes(-len(data) % 64)
        places[name] = len(data), weight
        data += weight.tobytes()
    if weights:
        (folder / BACKBONE).write_bytes(data)
    languages = {}
    for code, layers in masks.items():
        graph = helper.make_graph(
            [helper.make_node("Identity", ["x"], ["y"])],
            code,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])],
            initializer(layers, places, code),
        )
        (folder / f"{code}.onnx").write_bytes(
            helper.make_model(graph).SerializeToString()
        )
        (folder / f"{code}.tokens.txt").write_text("<blk> 0\na 1\n")
        files = [f"{code}.onnx", f"{code}.tokens.txt", BACKBONE]
        languages[code] = BundleLanguage(
            files[0], files[1], files[: 3 if weights else 2]
        )
    Bundle(languages, {}, layout="shared").save(folder)
    return folder


def initializer(layers, places, code):
    """Return a head, the bits of masks, and weights that lie elsewhere."""
    head = np.random.default_rng(len(code)).standard_normal((30, 9))
    tensors = [numpy_helper.from_array(head.astype("f4"), "head.weight")]
    for name, mask in layers.items():
        bits = np.packbits(mask.reshape(-1), bitorder="little")
        tensors.append(numpy_helper.from_array(bits, f"{name}.mask_bits"))
    for name, (offset, weight) in places.items():
        if name.split(".")[0] not in layers:
            continue
        tensor = TensorProto(name=name, dims=weight.shape)
        tensor.data_type = helper.np_dtype_to_tensor_dtype(weight.dtype)
        tensor.data_location = TensorProto.EXTERNAL
        where = {
            "location": BACKBONE,
            "offset": offset,
            "length": weight.nbytes,
        }
        for key, value in where.items():
            entry = tensor.external_data.add()
            entry.key, entry.value = key, str(value)
        tensors.append(tensor)
    return tensors
