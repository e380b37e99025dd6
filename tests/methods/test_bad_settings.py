"""Settings that cannot be are refused in one line, before any encoder."""

import warnings

import pytest
from method_encoders import make_encoder

from s3router.errors import SettingError
from s3router.methods.registry import METHODS, build_method, settings_of

NUMBERS_OF_THINGS = (
    "refresh_every",
    "reprune_every",
    "taylor_batches",
    "adapter_width",
    "lora_rank",
)
FLAGS = ("frozen", "train_weights")
POSITIVE = ("init_scale", "lora_alpha")


def with_any(settings):
    """Return (method, setting) for every method that has the setting."""
    return [
        (name, setting)
        for setting in settings
        for name in METHODS
        if setting in settings_of(name)
    ]


def refusal(name, **settings):
    with pytest.raises(SettingError) as caught:
        build_method(name, **settings)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.mark.parametrize("value", ["no", "off", "yes", "on", "False", 0, 1])
@pytest.mark.parametrize(("name", "setting"), with_any(FLAGS))
def test_flags_are_true_or_false_and_nothing_else(name, setting, value):
    text = refusal(name, **{setting: value})
    assert text == f"{setting} is {value!r}; write true or false"


@pytest.mark.parametrize(("name", "setting"), with_any(FLAGS))
def test_flags_do_what_they_say(name, setting):
    for value in (True, False):
        told = build_method(name, **{setting: value}).describe()
        assert told[setting] is value


@pytest.mark.parametrize("value", ["abc", "2", 2.5, 2.0, True, 0, -1, [2]])
@pytest.mark.parametrize(("name", "setting"), with_any(NUMBERS_OF_THINGS))
def test_numbers_of_things_are_whole(name, setting, value):
    assert refusal(name, **{setting: value}) == (
        f"{setting} is {value!r}, but must be a whole number, 1 or more"
    )


@pytest.mark.parametrize("value", ["x", True, 0, -1.0, float("nan"), [1.0]])
@pytest.mark.parametrize(("name", "setting"), with_any(POSITIVE))
def test_factors_are_positive_numbers(name, setting, value):
    assert refusal(name, **{setting: value}) == (
        f"{setting} is {value!r}, but must be a number above 0"
    )


@pytest.mark.parametrize("value", ["two", 1.5, [1]])
@pytest.mark.parametrize("setting", ["frozen_layers", "start_layers"])
def test_numbers_of_blocks_are_whole(setting, value):
    text = refusal("mask_tuning", start_mask="x", **{setting: value})
    assert text.startswith(f"{setting} is {value!r}, but must be a whole")


@pytest.mark.parametrize("layers", [0, -1, 3, True])
def test_numbers_of_blocks_that_are_not_there(layers):
    method = build_method("mask_tuning", frozen_layers=layers)
    with pytest.raises(SettingError, match=f"{layers} is not .* 1 to 2"):
        method.prepare(make_encoder())


@pytest.mark.parametrize("seed", ["abc", 1.5, -1])
@pytest.mark.parametrize(("name", "setting"), with_any(["seed"]))
def test_seeds_are_whole(name, setting, seed):
    assert f"seed is {seed!r}" in refusal(name, **{setting: seed})
    assert build_method(name, seed=0)


@pytest.mark.parametrize("targets", [3, None, [], ["all", 3], {"all": 0.1}])
@pytest.mark.parametrize(("name", "setting"), with_any(["targets"]))
def test_targets_are_names(name, setting, targets):
    text = refusal(name, **{setting: targets})
    assert f"targets: {targets!r} is not a name or a list" in text


@pytest.mark.parametrize(("name", "setting"), with_any(["pattern"]))
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sparsity": "abc"}, "'abc' is not in [0, 1)"),
        ({"sparsity": 1.0}, "1.0 is not in [0, 1)"),
        ({"scope": "globl"}, "did you mean 'global'"),
        ({"pattern": "block"}, "unknown pattern 'block'"),
        ({"pattern": "2:4", "scope": "global"}, "use scope layer"),
        (
            {"pattern": "1:4", "scope": "layer", "sparsity": 0.5},
            "0.5 does not fit the pattern 1:4",
        ),
    ],
)
def test_masks_that_no_encoder_could_have(name, setting, settings, message):
    assert setting in {"pattern", *settings}
    assert message in refusal(name, **settings)


@pytest.mark.parametrize(("name", "setting"), with_any(["pattern"]))
def test_masks_that_can_be_are_not_refused(name, setting):
    shares = {"feed_forward": 0.1, "attention": 0.4}
    assert build_method(name, sparsity=shares)
    fixed = {setting: "2:4", "scope": "layer", "sparsity": 0.5}
    assert build_method(name, **fixed)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"init": "kaimin"}, "did you mean 'kaiming"),
        ({"init": "zero"}, "cannot train"),
        ({"init_scale": 2.0}, "for weight_magnitude_with_scale only"),
        ({"surrogate": "tanh"}, "unknown surrogate"),
        ({"rule": "best"}, "unknown rule"),
        ({"rule": "positive", "scope": "global"}, "rule positive"),
        ({"score_dtype": "float16"}, "unknown score_dtype"),
    ],
)
def test_scores_that_no_encoder_could_have(settings, message):
    assert message in refusal("mask_tuning", **settings)


def test_a_start_that_hardly_trains_is_warned_of_once():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method = build_method("mask_tuning", init="one")
    with pytest.warns(UserWarning, match="init: one") as told:
        method.prepare(make_encoder())
    assert len(told) == 1
