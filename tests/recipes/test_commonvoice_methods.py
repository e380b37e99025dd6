"""Every YAML of a method as its user runs it; stages resume and export."""

import json
from pathlib import Path

import numpy as np
import pytest
from hyperpyyaml import load_hyperpyyaml

from s3router.cli import main
from s3router.formats.subnetwork import Subnetwork

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
ONE_STAGE = ["parp", "parp_p", "mpi", "taylor", "random"]
QUICK = ("--number_of_epochs=2", "--reprune_every=2", "--taylor_batches=3")


def result_of(folder: Path) -> dict:
    return json.loads((folder / "result.json").read_text())


def run(recipe, name, output, *options):
    done = recipe.of(f"zh_{name}").run(output, *QUICK, *options)
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
