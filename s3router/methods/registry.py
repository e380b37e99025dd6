"""Methods by name, so that one YAML key chooses among them."""

import inspect

from s3router.errors import SettingError, near, one_of
from s3router.methods.adapter import Adapter
from s3router.methods.base import Method
from s3router.methods.full import FullTuning
from s3router.methods.head_only import HeadOnly
from s3router.methods.ia3 import IA3
from s3router.methods.lora import LoRA
from s3router.methods.magnitude import MagnitudePruning
from s3router.methods.mask_tuning import MaskTuning
from s3router.methods.parp import PARP
from s3router.methods.random_mask import RandomMask
from s3router.methods.taylor import TaylorPruning

METHODS: dict[str, type[Method]] = {
    method.name: method
    for method in (
        MaskTuning,
        PARP,
        MagnitudePruning,
        TaylorPruning,
        RandomMask,
        FullTuning,
        LoRA,
        IA3,
        Adapter,
        HeadOnly,
    )
}


#: Settings that ask for something special, and what asks for nothing: a
#: method that lacks one must not pass over it in silence.
NEUTRAL = {
    "frozen": False,
    "frozen_layers": None,
    "initial_sparsity": None,
    "start_layers": None,
    "start_mask": None,
    "start_weights": None,
    "train_weights": None,
}


def settings_of(name: str) -> list[str]:
    """Return the settings that a method has.

    Arguments
    ---------
    name : str
        A key of `METHODS`.

    Raises
    ------
    SettingError
        If there is no such method.

    Example
    -------
    >>> settings_of("adapter")
    ['adapter_width', 'seed']
    """
    method = METHODS[one_of(name, METHODS, "method")]
    return list(inspect.signature(method).parameters)


def methods_with(setting: str) -> list[str]:
    """Return the names of the methods that have a setting."""
    return [name for name in METHODS if setting in settings_of(name)]


def build_method(name: str, **settings: object) -> Method:
    """Build a method from the settings of a YAML.

    A YAML states the settings of all methods side by side, so that swapping
    the method is one word. Each method takes those that it knows; a setting
    that no method knows is an error, and so is one of `NEUTRAL` that is set
    for a method that does not have it.

    Arguments
    ---------
    name : str
        A key of `METHODS`: mask_tuning, parp, magnitude, taylor, random,
        full, lora, ia3, adapter, head_only.
    **settings : object
        Settings of this and of other methods.

    Returns
    -------
    Method
        The method, not yet attached to an encoder.

    Raises
    ------
    SettingError
        If the method or a setting is unknown, or the method cannot do what a
        setting asks for.

    Example
    -------
    >>> build_method("mask_tuning", sparsity=0.5).describe()["sparsity"]
    0.5
    >>> build_method("head_only", sparsity=0.5).describe()
    {'method': 'head_only'}
    """
    own = settings_of(name)
    known = {option for method in METHODS for option in settings_of(method)}
    for option in settings:
        if option not in known:
            raise SettingError(
                f"no method has a setting {option!r}: "
                f"{near(option, known)}Known: {', '.join(sorted(known))}"
            )
    for option, neutral in NEUTRAL.items():
        value = settings.get(option, neutral)
        if option not in own and value != neutral:
            raise SettingError(
                f"the method {name!r} has no setting {option!r}, which is "
                f"{value!r}; methods with it: "
                f"{', '.join(methods_with(option))}"
            )
    return METHODS[name](**{k: v for k, v in settings.items() if k in own})
