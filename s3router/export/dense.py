"""What a bundle is compared with: its encoder, whole, in fp32.

A bundle of one language, `dense`, whose graph has all weights and no mask. Its
head is random, so it is not verified and says nothing; it takes as long as the
right one.
"""

import os
from pathlib import Path

from s3router.export.fold import plain_model
from s3router.export.graph import export_graph
from s3router.export.probes import frame_hop
from s3router.formats.bundle import Bundle, BundleLanguage
from s3router.formats.subnetwork import Subnetwork
from s3router.formats.tokens_file import save_tokens
from s3router.models.encoder import SSLEncoder, load_encoder
from s3router.models.heads import CTCHead

DENSE = "dense"
_TOKENS = "tokens.txt"


def make_dense_bundle(
    encoder: str, folder: str | os.PathLike, vocabulary: int
) -> Bundle:
    """Export an encoder without masks, to measure beside a bundle.

    Arguments
    ---------
    encoder : str
        As for `load_encoder`.
    folder : str or path
        Where to write; made.
    vocabulary : int
        How many tokens the head tells apart.

    Returns
    -------
    Bundle
        In layout standalone, with the language `DENSE`.

    Raises
    ------
    NotFoundError
        If there is no such encoder.
    FormatError
        If it is damaged.
    """
    folder = Path(folder)
    (folder / DENSE).mkdir(parents=True)
    loaded = load_encoder(encoder)
    tokens = [f"t{i}" for i in range(vocabulary)]
    model = plain_model(loaded, _unmasked(loaded, tokens))
    graph, *rest = export_graph(model, folder / DENSE / "model.onnx")
    save_tokens(folder / DENSE / _TOKENS, tokens)
    names = [f"{DENSE}/{name}" for name in (graph.name, _TOKENS)]
    names += [f"{DENSE}/{path.name}" for path in rest]
    bundle = Bundle(
        {DENSE: BundleLanguage(names[0], names[1], names)},
        {},
        encoder={"name": str(encoder), "family": loaded.family},
        sample_rate=loaded.sample_rate,
        normalize=bool(loaded.normalize_input),
        min_samples=int(loaded.min_samples),
        hop=frame_hop(loaded),
    )
    bundle.save(folder)
    bundle.folder = folder
    return bundle


def _unmasked(encoder: SSLEncoder, tokens: list[str]) -> Subnetwork:
    """Return a subnetwork of an encoder that keeps all and has some head."""
    config = {
        "fingerprint": encoder.fingerprint(),
        "normalize": encoder.normalize_input,
    }
    head = CTCHead(encoder.hidden_size, len(tokens)).to_numpy()
    return Subnetwork(config, {}, head, tokens)
