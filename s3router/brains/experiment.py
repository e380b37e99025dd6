"""What a recipe does before it trains: settings, folder, tokens, copies."""

import dataclasses
import tempfile
from collections.abc import Mapping
from pathlib import Path

import speechbrain as sb
from speechbrain.utils.distributed import if_main_process, infer_device

from s3router.brains.hparams import flatten_hparams, load_hparams
from s3router.data.augment import DegradedClips
from s3router.data.languages import is_spaceless
from s3router.data.manifest import read_manifest
from s3router.data.tokens import CharTokens, SentencePieceTokens, Tokens
from s3router.errors import MismatchError, one_of
from s3router.formats.subnetwork import Subnetwork
from s3router.models.heads import CTCHead
from s3router.models.precision import choose_attention, resolve_precision


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


def settle_precision(
    run_opts: sb.RunOptions, hparams: Mapping
) -> tuple[sb.RunOptions, str]:
    """Choose the precision, and the attention that goes with it.

    Arguments
    ---------
    run_opts : speechbrain.RunOptions
        Of the command line, whose precision counts most.
    hparams : mapping
        With `precision`, where "auto" is told by the device, and
        `ssl_encoder`, whose attention is chosen.

    Returns
    -------
    run_opts : speechbrain.RunOptions
        With the precision of training.
    device : str
        As torch names it.
    """
    device = run_opts.get("device") or infer_device()
    given = run_opts.overridden_args
    wanted = (
        run_opts.precision if "precision" in given else hparams["precision"]
    )
    settled = dataclasses.replace(
        run_opts,
        precision=resolve_precision(wanted, device),
        overridden_args=given | {"precision"},
    )
    model = hparams["ssl_encoder"].model
    choose_attention(model, device, settled.precision)
    return settled, device
