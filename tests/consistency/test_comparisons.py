"""What is reported of a comparison is what its YAML asks for."""

import json

import pytest
from repository_files import ROOT

from s3router.comparison.spec import read_comparison

RESULTS = sorted((ROOT / "recipes/commonvoice/results/compare").glob("*.json"))
OWN = ("specification", "baseline", "cells")


@pytest.mark.parametrize("result", RESULTS, ids=lambda path: path.stem)
def test_rows_are_those_of_the_yaml(result, monkeypatch):
    monkeypatch.chdir(ROOT)
    reported = json.loads(result.read_text(encoding="utf-8"))
    config = reported["config"]
    settings = {k: v for k, v in config.items() if k not in OWN}
    asked = read_comparison(config["specification"], settings)
    assert config["baseline"] == asked.baseline
    assert list(config["cells"]) == [cell.name for cell in asked.cells]
    for cell in asked.cells:
        told = config["cells"][cell.name]
        assert told["yaml"] == cell.yaml
        assert told["search"] == json.loads(json.dumps(cell.search))
        assert told["seeds"] == list(cell.seeds)
        own = json.loads(json.dumps(cell.settings({}, cell.seeds[0])))
        assert told["settings"] == own
    rows = reported["metrics"]["rows"]
    assert [row["seeds"] for row in rows] == [
        list(cell.seeds) for cell in asked.cells
    ], "runs are missing"


def test_every_comparison_is_reported():
    asked = {path.stem for path in (ROOT / "hparams/compare").glob("*.yaml")}
    assert asked == {path.stem for path in RESULTS}
