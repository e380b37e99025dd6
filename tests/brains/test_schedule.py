"""Learning-rate factors against the fairseq-style closed form."""

import math

import numpy as np
import pytest

from s3router.brains.schedule import tri_stage, warmup_cosine


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
