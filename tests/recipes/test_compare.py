"""Methods compared by the real recipe."""

import json

import pytest

from s3router.cli import main
from s3router.comparison.spec import read_comparison

SPECS = ("labels", "masks", "methods", "sparsities")


@pytest.mark.parametrize("name", SPECS)
def test_comparisons_that_ship_are_sound(name):
    found = read_comparison(f"hparams/compare/{name}.yaml")
    assert len({cell.name for cell in found.cells}) == len(found.cells)


@pytest.mark.slow
def test_two_methods_end_in_one_table(recipe, tmp_path, monkeypatch, capsys):
    for key, value in recipe.environment().items():
        monkeypatch.setenv(key, value)
    path = tmp_path / "two.yaml"
    settings = {
        option[2:].partition("=")[0]: option.partition("=")[2]
        for option in recipe.command(tmp_path)[2:]
        if not option.startswith(("--output", "--lr_", "--device", "--nopro"))
    }
    common = "\n".join(f"    {k}: {v}" for k, v in settings.items())
    path.write_text(
        f"""
recipe: recipes/commonvoice/train.py
output_folder: {tmp_path / "out"}
common:
{common}
methods:
    full: {{yaml: hparams/zh_full.yaml, search: {{lr_weights: [1e-3, 4e-3]}}}}
    omp: {{yaml: hparams/zh_omp.yaml, search: {{lr_weights: [1e-3, 4e-3]}}}}
"""
    )
    options = ["--option=--device=cpu", "--option=--noprogressbar"]
    assert main(["compare", str(path), *options]) == 0, capsys.readouterr()
    rows = json.loads((tmp_path / "out" / "result.json").read_text())
    full, omp = rows["metrics"]["rows"]
    assert (full["method"], full["sparsity"]) == ("full", 0)
    assert omp["sparsity"] == pytest.approx(0.5, abs=1e-4)
    assert omp["against"]["utterances"] == 8
    gap = omp["test"]["rate"] - full["test"]["rate"]
    assert omp["against"]["difference"] == pytest.approx(gap)
    assert omp["seconds_per_batch"] > 0
