"""The one door to every speech encoder, whatever its family and file format.

    encoder = load_encoder("tiny")          # or a folder, hub name, .pt file
    hidden, frames = encoder(wavs, wav_lens)

See `s3router.models.ssl_encoder` for what an encoder promises.
"""

from s3router.models.build import build_model
from s3router.models.fairseq import read_fairseq
from s3router.models.hugging_face import read_hugging_face
from s3router.models.sources import locate
from s3router.models.ssl_encoder import SSLEncoder

__all__ = ["SSLEncoder", "load_encoder"]


def load_encoder(
    source: str,
    cache_folder: str | None = None,
    *,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    activation_dropout: float = 0.0,
    projection_dropout: float = 0.0,
    freeze_front_end: bool = True,
) -> SSLEncoder:
    """Load an encoder of any known family and format.

    Families: wav2vec2 (with XLSR-53, XLS-R, MMS), HuBERT, WavLM,
    data2vec-audio, UniSpeech-SAT.

    Arguments
    ---------
    source : str
        "tiny" (embedded in the package), a folder in the Hugging Face format,
        the `.pt` file of a fairseq checkpoint (wav2vec2, XLSR, XLS-R, HuBERT,
        data2vec), or a name on the hub.
    cache_folder : str, optional
        Where downloads are kept.
    dropout, attention_dropout, activation_dropout, projection_dropout : float
        Probabilities in [0, 1): after attention and feed-forward, on the
        attention weights, inside the feed-forward, after the feature
        projection. wav2vec2's fine-tuning recipes use 0.1 for the first
        three in base models.
    freeze_front_end : bool
        Whether the conv front end takes no gradient, as in all recipes.

    Returns
    -------
    SSLEncoder
        On the CPU, in evaluation mode.

    Raises
    ------
    NotFoundError
        If there is nothing at `source`, or the hub cannot be reached.
    FormatError
        If what is there is damaged or no known encoder.
    SettingError
        If a probability is out of range.
    """
    path = locate(source, cache_folder)
    read = read_fairseq if path.is_file() else read_hugging_face
    config, state, normalize = read(path, str(source))
    dropouts = {
        "dropout": dropout,
        "attention_dropout": attention_dropout,
        "activation_dropout": activation_dropout,
        "projection_dropout": projection_dropout,
    }
    model = build_model(config, state, str(source), dropouts)
    return SSLEncoder(model, str(source), normalize, freeze_front_end)
