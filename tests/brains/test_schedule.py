"""Learning-rate factors against the fairseq-style closed form."""

import math

import numpy as np
import pytest

from s3router.brains.hparams import load_hparams, settled_hparams
from s3router.brains.schedule import tri_stage, warmup_cosine
from s3router.errors import SettingError

# Building the object would end the test, so what is refused is refused before.
RUN = """
number_of_epochs: 30
validate_every: 1
lr_scores: 5.0e-5
lr_head: !ref <lr_scores>
lr_head_warmup: 1
evaluate_test: True
wanted: !ref <evaluate_test>
built: !apply:operator.truediv [1, 0]
"""


def test_tri_stage_equals_the_step_by_step_recursion():
    total, final = 1000, 0.05
    decay = -math.log(final) / 500
    expected = (
        [0.01 + 0.99 * s / 100 for s in range(100)]
        + [1.0] * 400
        + [math.exp(-decay * s) for s in range(500)]
    )
    actual = [tri_stage(step / total, final=final) for step in range(total)]
    assert np.allclose(actual, expected)


@pytest.mark.parametrize("schedule", [tri_stage, warmup_cosine])
def test_factor_stays_within_its_bounds(schedule):
    factors = [schedule(p) for p in np.linspace(-0.2, 1.3, 301)]
    assert max(factors) == pytest.approx(1.0) and min(factors) >= 0.0
    assert factors[-1] == schedule(1.0)


@pytest.fixture
def run_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(RUN, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("override", "message"),
    [
        *(
            (
                f"{setting}: {value}",
                f"{setting} is {shown}, but must be a whole",
            )
            for setting in ("number_of_epochs", "validate_every")
            for value, shown in (
                ("0", "0"),
                ("1.5", "1.5"),
                ("-1", "-1"),
                ("two", "'two'"),
                ("true", "True"),
                ("null", "None"),
                ("!ref <lr_scores>", "5e-05"),
            )
        ),
        *(
            (f"{setting}: {value}", f"{setting} is {shown}, but must be a num")
            for setting in ("lr_scores", "lr_head", "lr_head_warmup")
            for value, shown in (
                ("abc", "'abc'"),
                ("0", "0"),
                ("-1.0e-3", "-0.001"),
                (".nan", "nan"),
                (".inf", "inf"),
                ("false", "False"),
            )
        ),
        *(
            (f"evaluate_test: {value}", f"evaluate_test is '{value}'; write")
            for value in ("no", "off", "yes")
        ),
    ],
)
def test_what_no_training_can_have_is_refused_before_it_is_built(
    override, message, run_yaml
):
    for load in (settled_hparams, load_hparams):
        with pytest.raises(SettingError) as caught:
            load(run_yaml, override)
        text = str(caught.value)
        assert text.startswith(message) and "\n" not in text


def test_settled_settings_are_references_followed_and_nothing_built(run_yaml):
    settled = settled_hparams(run_yaml, "validate_every: 3\nlr_scores: 0.25")
    assert settled["lr_head"] == 0.25 and settled["validate_every"] == 3
    assert settled["wanted"] is True
    assert list(settled["built"]) == [1, 0]
    referred = settled_hparams(run_yaml, "evaluate_test: !ref <lr_scores>")
    assert referred["evaluate_test"] == 5.0e-5
    with pytest.raises(ZeroDivisionError):
        load_hparams(run_yaml)
