"""The graph of mode "switch": its inputs, where they lie, its verification."""

import json

import numpy as np
import onnx
import pytest
from subnetworks import KINDS, make_encoder, make_subnetwork

from s3router.errors import VerificationError
from s3router.export.bundle import make_bundle
from s3router.export.runner import RUNNER, check_runner, find_inputs
from s3router.export.verification import check_bundle
from s3router.formats.bundle import BACKBONE, Bundle
from s3router.formats.graph_bytes import MASK_BITS
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder
from s3router.runtime.recognizer import Recognizer
from s3router.runtime.switch import PLACES


@pytest.fixture(scope="module")
def masked(tmp_path_factory, encoder_folder):
    """Return subnetworks of all layers, of feed-forward ones, and of none."""
    root = tmp_path_factory.mktemp("masked")
    paths = [
        make_subnetwork(root / code, encoder_folder, code, 0.4, seed=seed)
        for seed, code in enumerate(["aa", "bb", "cc"])
    ]
    for path, part in ((paths[1], "feed_forward"), (paths[2], "nothing")):
        subnetwork = Subnetwork.load(path)
        for name in [n for n in subnetwork.masks if part not in n]:
            del subnetwork.masks[name]
        if path is paths[2]:
            # Another vocabulary.
            subnetwork.tokens.append("ж")
            for key, value in subnetwork.head.items():
                subnetwork.head[key] = np.concatenate([value, value[:1] + 1])
        subnetwork.save(path)
    return paths


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, masked):
    """Return the bundle of all three, not to be changed."""
    folder = tmp_path_factory.mktemp("runner") / "bundle"
    make_bundle(masked, folder)
    return folder


def said(folder):
    model = onnx.load(folder / RUNNER, load_external_data=False)
    properties = {p.key: p.value for p in model.metadata_props}
    return model, json.loads(properties[PLACES])


def test_what_languages_differ_in_is_an_input(bundle, masked):
    model, places = said(bundle)
    owners = set(Subnetwork.load(masked[0]).masks)
    weights = {f"{owner}.weight" for owner in owners}
    inputs = {value.name for value in model.graph.input}
    assert inputs == {"input_values", "head.weight", "head.bias", *weights}
    stored = {tensor.name for tensor in model.graph.initializer}
    assert not stored & inputs
    assert not any(name.endswith(MASK_BITS) for name in stored)
    assert set(places["weights"]) == weights
    assert (bundle / RUNNER).stat().st_size < 1 << 20


def test_weights_masks_and_heads_lie_where_it_says(bundle, masked):
    model, places = said(bundle)
    backbone = (bundle / places["backbone"]).read_bytes()
    assert places["backbone"] == BACKBONE
    shapes = {
        value.name: [d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in model.graph.input
    }
    encoder = load_encoder(Bundle.load(bundle).encoder["name"]).model
    for name, offset in places["weights"].items():
        count = int(np.prod(shapes[name]))
        got = np.frombuffer(backbone, "<f4", count, offset)
        expected = encoder.get_parameter(name).detach().numpy()
        got = got.reshape(shapes[name])
        assert any(np.array_equal(one, expected) for one in (got, got.T))
    for path in masked:
        subnetwork = Subnetwork.load(path)
        code = subnetwork.config["language"]
        content = (bundle / f"{code}.onnx").read_bytes()
        found = places["languages"][code]
        masks = {n for n in found if n.endswith(MASK_BITS)}
        assert masks == {f"{owner}{MASK_BITS}" for owner in subnetwork.masks}
        for owner, mask in subnetwork.masks.items():
            offset, count = found[f"{owner}{MASK_BITS}"]
            bits = np.frombuffer(content, np.uint8, count, offset)
            flat = np.unpackbits(bits, bitorder="little", count=mask.size)
            assert flat.sum() == mask.sum()
        offset, size = found["head.bias"]
        bias = np.frombuffer(content, "<f4", size, offset)
        assert bias.tolist() == subnetwork.head["bias"].tolist()


def test_offsets_are_not_taken_on_trust(bundle):
    for code in ("aa", "bb"):
        path = bundle / f"{code}.onnx"
        content = path.read_bytes()
        graph = onnx.load(path, load_external_data=False).graph
        raw = {t.name: t.raw_data for t in graph.initializer}
        for name, (offset, *_) in find_inputs(path).items():
            assert content[offset : offset + len(raw[name])] == raw[name]


def test_checking_again_covers_mode_switch(masked, tmp_path):
    """A place that is wrong by some bytes is found."""
    folder = tmp_path / "bundle"
    make_bundle(masked[:1], folder)
    check_bundle(folder)
    model, places = said(folder)
    name = next(iter(places["weights"]))
    places["weights"][name] += 4
    (kept,) = [p for p in model.metadata_props if p.key == PLACES]
    kept.value = json.dumps(places)
    onnx.save(model, folder / RUNNER)
    Bundle.load(folder).save(folder)
    with pytest.raises(VerificationError, match="aa: in mode switch"):
        check_bundle(folder)


def test_nan_and_another_size_do_not_pass(bundle):
    clip = np.zeros(4000, np.float32)
    right = Recognizer(bundle, "aa", "cpu").logits(clip)
    check_runner(bundle, {"aa": right}, clip, {"aa": 1e-3})
    for wrong in (right + np.nan, right[1:], right + 0.1):
        with pytest.raises(VerificationError, match="aa: in mode switch"):
            check_runner(bundle, {"aa": wrong}, clip, {"aa": 1e-3})


@pytest.mark.slow
@pytest.mark.parametrize("family", KINDS)
def test_every_family_switches(family, tmp_path):
    """Export itself compares mode switch with mode fold."""
    encoder = make_encoder(tmp_path / "encoder", family)
    paths = [
        make_subnetwork(tmp_path / code, encoder, code, 0.4, seed=seed)
        for seed, code in enumerate(["aa", "bb"])
    ]
    make_bundle(paths, tmp_path / "bundle", layout="shared")
    assert Bundle.load(tmp_path / "bundle").runner == RUNNER
