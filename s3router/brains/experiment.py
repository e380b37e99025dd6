"""What a recipe does before it trains: settings, folder, tokens, cache."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

import speechbrain as sb
import torch
from speechbrain.utils.distributed import if_main_process

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.data.audio import read_audio
from s3router.data.augment import DegradedClips, with_copies
from s3router.data.languages import is_spaceless
from s3router.data.manifest import read_manifest
from s3router.data.tokens import CharTokens, SentencePieceTokens, Tokens
from s3router.errors import MismatchError, one_of
from s3router.formats.subnetwork import Subnetwork
from s3router.models.encoder import SSLEncoder
from s3router.models.front_end_cache import FrontEndCache
from s3router.models.heads import CTCHead


def start_experiment(path: str, overrides: str | dict, script: str) -> dict:
    """Load the settings and make the experiment's folder, as SpeechBrain does.

    Arguments
    ---------
    path : str
        The experiment's YAML.
    overrides : str or dict
        Settings of the command line, as YAML text or mapping.
    script : str
        The recipe's file, of which a copy is kept.

    Returns
    -------
    dict
        Settings and the objects that they name. The folder then holds the
        resolved settings (`hyperparams.yaml`), the script and the log.
    """
    hparams = load_hparams(path, overrides)
    with tempfile.TemporaryDirectory() as folder:
        flat = Path(folder) / "settings.yaml"
        flat.write_text(flatten_hparams(path, overrides), encoding="utf-8")
        sb.create_experiment_directory(
            experiment_directory=hparams["output_folder"],
            hyperparams_to_save=str(flat),
            save_env_desc=hparams["save_environment"],
        )
        # The script is saved by its own path, whoever calls this.
        target = Path(hparams["output_folder"]) / Path(script).name
        if if_main_process():
            target.write_text(Path(script).read_text(encoding="utf-8"))
    return hparams


def build_tokens(train_csv: Path, hparams: Mapping) -> Tokens:
    """Return the tokens of the training transcripts.

    Arguments
    ---------
    train_csv : pathlib.Path
        Manifest of the training split; no other text is looked at.
    hparams : mapping
        With `token_type`, `vocabulary_size` and `language`.

    Returns
    -------
    Tokens
        Characters or SentencePiece pieces, blank and unknown included.
    """
    kind = one_of(hparams["token_type"], ["char", "sentencepiece"], "tokens")
    texts = [row["wrd"] for row in read_manifest(train_csv)]
    if kind == "char":
        return CharTokens.from_texts(texts)
    return SentencePieceTokens.from_texts(
        texts,
        hparams["vocabulary_size"],
        spaceless=is_spaceless(hparams["language"]),
    )


def put_head(head: CTCHead, tokens: Tokens, folder: str) -> None:
    """Let a head start from that of a subnetwork.

    Arguments
    ---------
    head : CTCHead
        Overwritten.
    tokens : Tokens
        What its outputs stand for.
    folder : str
        Of a subnetwork.

    Raises
    ------
    MismatchError
        If its outputs stand for other tokens, or take another width.
    """
    start = Subnetwork.load(folder)
    if start.tokens != list(tokens.symbols):
        raise MismatchError(
            f"start_head: {folder} has {len(start.tokens)} tokens, and they "
            f"are not the {len(tokens.symbols)} of these transcripts; leave "
            "start_head out, or train on the same transcripts"
        )
    head.load_numpy(start.head)


def training_copies(train_csv: Path, hparams: Mapping) -> DegradedClips:
    """Return the training clips and their degraded copies.

    Arguments
    ---------
    train_csv : pathlib.Path
        Manifest of the training split.
    hparams : mapping
        With `sample_rate`, `seed` and `ssl_encoder`.

    Returns
    -------
    DegradedClips
        ID, as of `copy_id`, to samples.
    """
    return DegradedClips(
        {row["ID"]: row["wav"] for row in read_manifest(train_csv)},
        hparams["sample_rate"],
        hparams["ssl_encoder"].min_samples,
        hparams["seed"],
    )


def cache_front_end(
    encoder: SSLEncoder,
    csvs: Mapping[str, Path],
    copies: DegradedClips,
    hparams: Mapping,
) -> Callable[[str], torch.Tensor]:
    """Run the frozen front end once over every clip and every copy.

    Arguments
    ---------
    encoder : SSLEncoder
        On the device that computes.
    csvs : mapping
        Split name to manifest.
    copies : DegradedClips
        Of the split `train`.
    hparams : mapping
        With `sample_rate`, `cache_megabytes` and `augmented_copies`.

    Returns
    -------
    callable
        ID, as of `copy_id`, to its (time, channels) features.
    """
    cache = FrontEndCache(encoder, hparams["cache_megabytes"])
    rate = hparams["sample_rate"]
    clips = {
        row["ID"]: lambda wav=row["wav"]: read_audio(wav, rate)
        for name, csv in csvs.items()
        if name != "train"
        for row in read_manifest(csv)
    }
    for uid in with_copies(sorted(copies.wavs), hparams["augmented_copies"]):
        clips[uid] = lambda uid=uid: copies(uid)
    cache.add(clips.items())
    return cache.get
