"""From a trained method to the subnetwork that is saved."""

from importlib.metadata import version

import numpy as np

from s3router import __version__
from s3router.formats.subnetwork import Subnetwork
from s3router.methods.base import Method

_VERSIONS_KEPT = ("torch", "transformers", "speechbrain", "numpy")


def collect_subnetwork(
    method: Method,
    head: dict[str, np.ndarray],
    symbols: list[str],
    config: dict,
    tokenizer_model: bytes | None = None,
) -> Subnetwork:
    """Gather what a method found into one subnetwork.

    Arguments
    ---------
    method : Method
        Trained, and in the state that is to be saved.
    head : dict of str to numpy.ndarray
        The head's weights, float32.
    symbols : list of str
        Tokens; the index is the id.
    config : dict
        Language, task, encoder, fingerprint and what else identifies it; the
        method's own settings and the measured sparsity are added.
    tokenizer_model : bytes, optional
        A SentencePiece model.

    Returns
    -------
    Subnetwork
        Ready for `save`.
    """
    masks = {n: m.cpu().numpy() for n, m in method.masks().items()}
    total = sum(m.size for m in masks.values())
    removed = sum(m.size - int(m.sum()) for m in masks.values())
    versions = {name: version(name) for name in _VERSIONS_KEPT}
    return Subnetwork(
        config={
            **config,
            **method.describe(),
            "measured_sparsity": removed / total if total else 0.0,
            "versions": {"s3router": __version__, **versions},
        },
        masks=masks,
        head=head,
        tokens=symbols,
        tokenizer_model=tokenizer_model,
        weights={
            name: weight.detach().float().cpu().numpy()
            for name, weight in method.weights().items()
        },
    )
