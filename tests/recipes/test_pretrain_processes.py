"""Two processes by torchrun: other batches, one network, files once."""

import json

import pytest
from pretrain_runs import arguments, make_recordings, run_command
from safetensors.torch import load_file

from s3router.brains.schedule import warmup_cosine
from s3router.formats.files import read_json

LAUNCHER = [
    "-m",
    "torch.distributed.run",
    "--standalone",
    "--nproc_per_node=2",
    "tests/tools/pretrain_and_digest.py",
]
STAGES = {"hubert": "iteration_1", "wav2vec2": "contrastive"}


@pytest.fixture(scope="module")
def recordings(tmp_path_factory):
    return make_recordings(tmp_path_factory.mktemp("audio"))


def run_two(recordings, root, objective, die_at=0, **changes):
    words = arguments(
        recordings,
        root / "run",
        objective=objective,
        epoch_steps=4,
        iterations="[{units: 8, epochs: 2, of: mfcc}]",
        **changes,
    )
    return run_command(LAUNCHER, str(root / "notes"), str(die_at), *words)


@pytest.fixture(
    scope="module",
    params=["hubert", pytest.param("wav2vec2", marks=pytest.mark.slow)],
)
def both(request, recordings, tmp_path_factory):
    """Objective, folder, and what each process noted."""
    root = tmp_path_factory.mktemp(request.param)
    code, text = run_two(recordings, root, request.param)
    assert code == 0, text
    notes = [
        json.loads((root / "notes" / f"{rank}.json").read_text())
        for rank in (0, 1)
    ]
    return request.param, root / "run", notes


def test_processes_see_other_batches_and_have_one_network(both):
    objective, _, notes = both
    stage = STAGES[objective]
    seen = []
    for own in notes:
        own = [digest for name, digest in own["batches"] if name == stage]
        assert len(own) == 8  # four steps in each of two epochs
        assert len(set(own)) == 8
        seen += own
    assert len(set(seen)) == 16
    for name in ("warmup", stage):
        digests = {own["weights"][name] for own in notes}
        assert len(digests) == 1, name


def test_steps_and_rates_are_those_of_the_yaml(both):
    objective, run, notes = both
    stage = STAGES[objective]
    expected = [
        1.5e-3 * warmup_cosine(n / 8, warmup=0.05, final=0.05) for n in range(8)
    ]
    for own in notes:
        rates = [rate for name, rate in own["rates"] if name == stage]
        assert rates == pytest.approx(expected)
    curve = read_json(run / "curves" / f"{stage}.json")
    assert curve["processes"] == 2
    assert [entry["step"] for entry in curve["entries"]] == [4, 8]
    # All processes' audio counts: two batches of 2 s in each step.
    hours = 4 * 2 * 2 / 3600
    for entry in curve["entries"]:
        assert entry["train_hours"] == pytest.approx(hours, rel=0.2)
    card = (run / "encoder" / "README.md").read_text(encoding="utf-8")
    assert "on each of 2 process(es)" in card


def test_files_are_written_by_the_main_process_alone(both):
    _, _, notes = both
    assert notes[1]["files"] == []
    for name in ("audio.i16", "features_1.f16", "pool.csv"):
        assert notes[0]["files"].count(name) == 1


@pytest.mark.slow
def test_killed_processes_go_on_at_their_step(both, recordings, tmp_path):
    objective, run, _ = both
    often = {"ckpt_interval_steps": 3}
    code, text = run_two(recordings, tmp_path, objective, 7, **often)
    assert code != 0, text
    code, text = run_two(recordings, tmp_path, objective, **often)
    assert code == 0, text
    assert "Loading a checkpoint" in text
    stage = STAGES[objective]
    notes = json.loads((tmp_path / "notes" / "1.json").read_text())
    done = [name for name, _ in notes["batches"] if name == stage]
    assert len(done) == 1  # the eighth; the seventh had its checkpoint
    weights = [
        load_file(folder / "encoder" / "model.safetensors")
        for folder in (run, tmp_path / "run")
    ]
    for name, tensor in weights[0].items():
        assert tensor.equal(weights[1][name]), name
    curves = [
        read_json(folder / "curves" / f"{stage}.json")["entries"]
        for folder in (run, tmp_path / "run")
    ]
    for first, second in zip(*curves, strict=True):
        for name in first:
            if not name.endswith("_seconds"):
                assert first[name] == pytest.approx(second[name]), name


@pytest.mark.slow
def test_a_fault_of_the_main_process_ends_all(tmp_path):
    code, text = run_two(tmp_path / "nowhere", tmp_path, "hubert")
    assert code != 0
    lines = [x for x in text.splitlines() if x.startswith("s3router: error")]
    assert len(lines) == 1 and "no such data folder" in lines[0]
    assert "Connection closed by peer" not in text
