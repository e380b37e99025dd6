"""How long a comparison will take, told before it starts."""

import json

from comparison_command import order, run

from s3router.comparison.estimate import (
    announce,
    seconds_by_trial,
    seconds_left,
)
from s3router.comparison.spec import read_comparison


def test_it_tells_how_long_it_will_take(comparison, tmp_path, capsys):
    """One epoch takes a second, as the recipe says."""
    comparison.write_text(
        comparison.read_text().replace(
            "encoder: tiny", "encoder: tiny, number_of_epochs: 1200"
        )
    )
    read = read_comparison(comparison)
    seconds = seconds_by_trial(read, 1, [])
    # 3 rows, each 2 values and a second seed, of 1200 epochs.
    assert 9 * 1200 <= seconds < 9 * 1200 + 9 * 60
    assert order(tmp_path) == []
    announce("words.yaml", read, 2, [], trial=True)
    tried, told = capsys.readouterr().out.splitlines()
    assert "one epoch of full tells how long" in tried
    assert told == (
        "words.yaml: 9 of 9 runs to do, 2 at a time; about 1.5 h by that epoch"
    )
    announce("words.yaml", read, 2, [], trial=False)
    assert "known when the first has ended" in capsys.readouterr().out
    assert not list((tmp_path / "out").iterdir())


def test_what_is_there_counts_with_all_that_it_took(comparison, tmp_path):
    """Loading, dev and test too, where results tell; else training."""
    read = read_comparison(comparison)
    assert seconds_left(read) is None
    assert run(comparison) == 0
    for file in (tmp_path / "out").rglob("2/result.json"):
        file.unlink()
    # Three rows lack a second seed.
    assert seconds_left(read) == 3 * 1.0
    for file in (tmp_path / "out").rglob("1/result.json"):
        result = json.loads(file.read_text())
        result["extra"]["run_seconds"] = 20.0
        file.write_text(json.dumps(result))
    assert seconds_left(read) == 3 * 20.0


def test_who_tells_of_training_alone_took_as_much_longer(comparison, tmp_path):
    read = read_comparison(comparison)
    assert run(comparison) == 0
    for file in (tmp_path / "out").rglob("2/result.json"):
        file.unlink()
    for file in (tmp_path / "out" / "ar" / "full").rglob("1/result.json"):
        result = json.loads(file.read_text())
        result["extra"] |= {"run_seconds": 10.0, "training_seconds": 4.0}
        file.write_text(json.dumps(result))
    # A run of full; two of masks, of which a second of training is told.
    assert seconds_left(read) == 10.0 + 2 * 1.0 * 10.0 / 4.0
