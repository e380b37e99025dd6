"""Settings that were asked for, but that the chosen method does not have.

A recipe's YAML holds the settings of all methods side by side. What somebody
states on the command line, or for one method of a comparison, is meant for the
method at hand. Must not build anything.
"""

import re
from collections.abc import Iterable, Mapping

from s3router.brains.hparams import flatten_hparams, parse_yaml
from s3router.errors import SettingError
from s3router.methods.registry import NEUTRAL, methods_with, settings_of

#: What a mask would be like: baselines without one stand beside methods with
#: one, and are swapped in by one word.
SHARED = frozenset(("targets", "sparsity", "scope", "pattern"))


def refuse_unused(
    path: str,
    told: Mapping[str, object],
    keys: Iterable[str],
    passed_over: frozenset[str] = frozenset(),
) -> None:
    """Refuse settings that no method of an experiment has.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    told : mapping
        All that is set beside it.
    keys : iterable of str
        Which of these to look at, as in `told`.
    passed_over : frozenset of str
        Settings of methods that may go unused, as `SHARED`.

    Raises
    ------
    SettingError
        If a setting belongs to methods, but to none of a stage here, and asks
        for more than nothing.

    Example
    -------
    >>> refuse_unused("hparams/zh_omp.yaml", {"lora_rank": 4}, ["lora_rank"])
    Traceback (most recent call last):
    ...
    s3router.errors.SettingError: lora_rank is 4, but the method (full, \
magnitude) has no such setting; methods with it: lora
    """
    tree = parse_yaml(flatten_hparams(path, dict(told)), path)
    stages = tree.get("stages") or [{}]
    methods = dict.fromkeys(s.get("method", tree["method"]) for s in stages)
    names = _method_settings(tree)
    for key in keys:
        setting = names.get(key)
        if setting is None or setting in passed_over:
            continue
        asked = told[key] != NEUTRAL.get(setting, ...)
        if asked and not any(setting in settings_of(m) for m in methods):
            raise SettingError(
                f"{key} is {told[key]!r}, but the method "
                f"({', '.join(methods)}) has no such setting; methods with "
                f"it: {', '.join(methods_with(setting))}"
            )


def _method_settings(tree: Mapping) -> dict[str, str]:
    """Return the keys of a YAML that are settings of methods alone."""
    found = {}
    for setting, reference in tree.get("subnetwork_method", {}).items():
        key = re.search(r"<(\w+)>", str(getattr(reference, "value", "")))
        if key is not None and setting not in ("name", "seed"):
            found[key[1]] = setting
    return found
