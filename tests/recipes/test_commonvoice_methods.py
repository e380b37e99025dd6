"""Every YAML of a method as its user runs it; stages resume and export."""

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hyperpyyaml import load_hyperpyyaml

from s3router.brains.hparams import parse_yaml
from s3router.cli import main
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import load_encoder

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
ONE_STAGE = ["parp", "parp_p", "mpi", "taylor", "random"]
QUICK = {
    "parp": ["--reprune_every=2"],
    "parp_p": ["--reprune_every=2"],
    "taylor": ["--taylor_batches=3"],
}


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def run(recipe, name, output, *options):
    quick = "--number_of_epochs=2", *QUICK.get(name, [])
    done = recipe.of(f"zh_{name}").run(output, *quick, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


@pytest.mark.slow
@pytest.mark.parametrize("name", ONE_STAGE)
def test_a_pruning_method_leaves_its_sparsity_and_weights(
    name, recipe, tmp_path
):
    run(recipe, name, tmp_path)
    found = Subnetwork.load(tmp_path / "subnetwork")
    assert found.config["measured_sparsity"] == pytest.approx(0.5, abs=1e-4)
    for owner, mask in found.masks.items():
        assert not found.weights[f"{owner}.weight"][~mask].any()
    extra = result_of(tmp_path)["extra"]
    assert extra["sparsity"] == found.sparsity()
    yaml = load_hyperpyyaml((tmp_path / "hyperparams.yaml").read_text())
    assert extra["method"] == (yaml["variant"] or yaml["method"])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ia3", "adapter"])
def test_small_additions_are_stored_and_exported(name, recipe, tmp_path):
    run(recipe, name, tmp_path)
    found = Subnetwork.load(tmp_path / "subnetwork")
    assert found.weights and not found.masks
    assert found.config["adapter_bytes"] > 0
    bundle = tmp_path / "bundle"
    status = main(
        ["export", str(tmp_path / "subnetwork"), "--output", str(bundle)]
    )
    assert not status
    assert (bundle / "zh-CN" / "model.onnx").is_file()


@pytest.mark.slow
def test_lora_is_stored_merged(recipe, tmp_path):
    run(recipe, "lora", tmp_path)
    found = Subnetwork.load(tmp_path / "subnetwork")
    assert found.weights and not found.masks
    stored = sum(weight.nbytes for weight in found.weights.values())
    assert 0 < found.config["adapter_bytes"] < stored / 2


def encoder_weights(folder: Path) -> dict[str, np.ndarray]:
    model = load_encoder(str(folder)).model
    return {n: p.detach().numpy() for n, p in model.named_parameters()}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["imp", "lth", "lth_iterative"])
def test_rounds_go_on_from_each_others_masks(
    name, recipe, tmp_path, small_encoder
):
    run(recipe, name, tmp_path)
    text = (HPARAMS / f"zh_{name}.yaml").read_text()
    first, *rounds, _ = [s["name"] for s in parse_yaml(text, name)["stages"]]
    found = [
        Subnetwork.load(folder / "subnetwork")
        for folder in (*(tmp_path / r for r in rounds), tmp_path)
    ]
    for last, following in itertools.pairwise(found):
        assert last.sparsity() < following.sparsity()
        for key, mask in following.masks.items():
            assert not (mask & ~last.masks[key]).any()
    assert found[-1].sparsity() == pytest.approx(0.5, abs=1e-4)
    # Extraction keeps the original weights, and so stores none.
    assert bool(found[-1].weights) == (name == "imp")
    assert result_of(tmp_path)["extra"]["method"] == name
    tuned = Subnetwork.load(tmp_path / first / "subnetwork")
    original = encoder_weights(small_encoder)
    magnitude = {
        key: np.abs(tuned.weights[f"{key}.weight"]) for key in found[0].masks
    }
    assert any(
        (magnitude[key] != np.abs(original[f"{key}.weight"])).any()
        for key in magnitude
    )
    if name == "imp":  # One ranking over all layers, of the tuned weights.
        kept, gone = (
            np.concatenate(
                [magnitude[k][m == keep] for k, m in found[0].masks.items()]
            )
            for keep in (True, False)
        )
        assert gone.max() <= kept.min()
    else:
        for key, mask in found[0].masks.items():
            assert magnitude[key][~mask].max() <= magnitude[key][mask].min()


@pytest.fixture(scope="module")
def one_shot(recipe, tmp_path_factory):
    output = tmp_path_factory.mktemp("omp")
    return output, run(recipe, "omp", output)


def test_stages_start_from_each_other(one_shot):
    output, done = one_shot
    assert f"stage 1 of 2: {output}/tuned" in done.stdout
    assert f"stage 2 of 2: {output}" in done.stdout
    tuned = Subnetwork.load(output / "tuned" / "subnetwork")
    pruned = Subnetwork.load(output / "subnetwork")
    sizes = {n: np.abs(tuned.weights[f"{n}.weight"]) for n in pruned.masks}
    # One ranking over all layers, of the tuned weights.
    kept = np.concatenate([sizes[n][m] for n, m in pruned.masks.items()])
    gone = np.concatenate([sizes[n][~m] for n, m in pruned.masks.items()])
    assert gone.max() <= kept.min()
    assert gone.size == round(0.5 * (gone.size + kept.size))
    assert result_of(output)["extra"]["method"] == "omp"
    assert result_of(output / "tuned")["config"]["method"] == "full"


def test_finished_stages_are_not_run_again(recipe, one_shot):
    output, _ = one_shot
    stamp = (output / "tuned" / "result.json").stat().st_mtime_ns
    done = run(recipe, "omp", output)
    assert "stage 1 of 2" not in done.stdout
    assert "stage 2 of 2" in done.stdout
    assert (output / "tuned" / "result.json").stat().st_mtime_ns == stamp


def test_a_subnetwork_of_masks_and_weights_is_exported(
    recipe, tmp_path, small_encoder
):
    run(recipe, "finetune_prune", tmp_path)
    tuned = Subnetwork.load(tmp_path / "tuned" / "subnetwork")
    found = Subnetwork.load(tmp_path / "subnetwork")
    for name, mask in found.masks.items():
        key = f"{name}.weight"
        assert np.array_equal(found.weights[key], tuned.weights[key] * mask)
    assert not np.array_equal(found.head["weight"], tuned.head["weight"])
    bundle = tmp_path / "bundle"
    status = main(
        ["export", str(tmp_path / "subnetwork"), "--output", str(bundle)]
    )
    assert not status
    assert (bundle / "zh-CN" / "model.onnx").is_file()


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ("[{method: full}]", "with a name"),
        ("[{name: a}, {name: a}]", "cannot be the name"),
        ("[{name: a, methd: full}]", "did you mean 'method'"),
        ("[{name: a, start_mask: b}, {name: b}]", "not come before"),
    ],
)
def test_stages_that_cannot_be_are_one_line(recipe, tmp_path, stages, message):
    done = recipe.run(tmp_path, f"--stages={stages}")
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--frozen=no", "frozen is 'no'; write true or false"),
        ("--frozen_layers=two", "frozen_layers is 'two', but must be a whole"),
        ("--targets=3", "targets: 3 is not a name"),
        ("--lr_scores=abc", "lr_scores is 'abc', but must be a number above 0"),
        ("--number_of_epochs=0", "number_of_epochs is 0, but must be a whole"),
    ],
)
def test_settings_that_cannot_be_are_one_line(
    recipe, tmp_path, option, message
):
    done = recipe.run(tmp_path, option)
    assert done.returncode == 2
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    # Nothing was begun that would have to be deleted.
    assert not list(tmp_path.iterdir())
