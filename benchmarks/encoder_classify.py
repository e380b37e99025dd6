"""Linear classification of one vector a clip, with an interval."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.linear_model import LogisticRegression

#: Inverse penalties that dev chooses from.
PENALTIES = (0.03, 0.3, 3.0)
_REPLICATES = 10_000
_FEWEST_SPEAKERS = 10


def probe_classes(
    states: Mapping[str, np.ndarray],
    labels: Mapping[str, Sequence[str]],
    speakers: Sequence[str],
) -> dict[str, object]:
    """Fit logistic regressions on every layer.

    Arguments
    ---------
    states : mapping
        Split to (layers, clips, width).
    labels : mapping
        Split to the class of each clip.
    speakers : sequence of str
        Of the test clips, for the interval.

    Returns
    -------
    dict
        `classes`, `dev_by_layer`, `last` and `best`.
    """
    fits = [
        _fit({split: values[layer] for split, values in states.items()}, labels)
        for layer in range(len(states["train"]))
    ]
    dev = [fit["dev"] for fit in fits]
    chosen = {"last": len(fits) - 1, "best": int(np.argmax(dev))}
    result = {
        "classes": len(set(labels["train"])),
        "dev_by_layer": dev,
    }
    classes = set(labels["train"])
    # Whole speakers are drawn where there are many, and are not the classes.
    grouped = len(set(speakers)) >= _FEWEST_SPEAKERS and not classes & set(
        speakers
    )
    for name, layer in chosen.items():
        right = fits[layer]["model"].predict(
            fits[layer]["scale"](states["test"][layer])
        ) == np.asarray(labels["test"])
        result[name] = {
            "layer": layer,
            "dev": dev[layer],
            "tried": fits[layer]["tried"],
            "chosen": {"C": fits[layer]["model"].C},
            "test": accuracy(right, speakers if grouped else None),
        }
    return result


def accuracy(
    right: np.ndarray, groups: Sequence[str] | None, seed: int = 0
) -> dict[str, object]:
    """Return the share that is right, with a 95% bootstrap interval.

    Arguments
    ---------
    right : numpy.ndarray
        (clips,) bool.
    groups : sequence of str, optional
        Speakers, drawn as a whole; None draws clips.
    seed : int
        Of the draws.

    Returns
    -------
    dict
        `rate`, `low`, `high`, `clips`, and what was `drawn`.

    Example
    -------
    >>> accuracy(np.array([True] * 4), None)["low"]
    1.0
    """
    names = np.arange(len(right)) if groups is None else np.asarray(groups)
    _, index = np.unique(names, return_inverse=True)
    hits = np.bincount(index, weights=right)
    sizes = np.bincount(index)
    generator = np.random.default_rng(seed)
    drawn = generator.integers(len(sizes), size=(_REPLICATES, len(sizes)))
    rates = hits[drawn].sum(1) / sizes[drawn].sum(1)
    low, high = np.percentile(rates, [2.5, 97.5])
    return {
        "rate": float(np.mean(right)),
        "low": float(low),
        "high": float(high),
        "clips": len(right),
        "drawn": "clips" if groups is None else "speakers",
    }


def _fit(
    states: Mapping[str, np.ndarray], labels: Mapping[str, Sequence[str]]
) -> dict[str, object]:
    """Return the model that is best on dev, and how it did."""
    mean = states["train"].mean(0)
    deviation = states["train"].std(0) + 1e-5

    def scale(values: np.ndarray) -> np.ndarray:
        return (values - mean) / deviation

    train, dev = scale(states["train"]), scale(states["dev"])
    models = {}
    for penalty in PENALTIES:
        model = LogisticRegression(C=penalty, max_iter=300)
        with warnings.catch_warnings():
            # Some hundred iterations are near enough for a probe; and few
            # clips of many classes are no mistake.
            warnings.simplefilter("ignore")
            model.fit(train, labels["train"])
        models[penalty] = model
    tried = {
        penalty: float(np.mean(model.predict(dev) == np.asarray(labels["dev"])))
        for penalty, model in models.items()
    }
    best = max(tried, key=lambda penalty: (tried[penalty], -penalty))
    return {
        "model": models[best],
        "scale": scale,
        "dev": tried[best],
        "tried": {str(k): v for k, v in tried.items()},
    }
