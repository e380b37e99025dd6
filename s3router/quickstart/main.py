"""The quickstart's steps, each resumed where an earlier call left it."""

import shutil
from pathlib import Path

from s3router.data.synthetic import make_corpus
from s3router.errors import SettingError
from s3router.evaluation.aggregate import QUICKSTART_COLUMNS, quickstart_rows
from s3router.evaluation.results import write_result
from s3router.evaluation.table_format import format_table
from s3router.quickstart.deploy import export_runs, measure
from s3router.quickstart.runs import Run, repository_root, train_all

MASKS = (
    Run("zh-CN", "hparams/zh_sparse.yaml", "mask_tuning"),
    Run("es", "hparams/es_sparse.yaml", "mask_tuning"),
    Run("ru", "hparams/ru_sparse.yaml", "mask_tuning"),
)
# Same data, steps and head; what else can be done with the same encoder.
CONTRASTS = (
    Run("zh-CN", "hparams/zh_sparse.yaml", "full"),
    Run("zh-CN", "hparams/zh_sparse.yaml", "head_only"),
)
MINUTES = {"train": 2.0, "dev": 1.0, "test": 2.0}
EPOCHS = 30
SEED = 1986
MARKER = "s3router_quickstart.txt"


def quickstart(folder: str | Path, clean: bool = False) -> Path:
    """Make speech, find subnetworks, export and run them, print a table.

    Arguments
    ---------
    folder : str or pathlib.Path
        Where everything goes. What is there already is not made again.
    clean : bool
        Start over: remove what an earlier call left in `folder`.

    Returns
    -------
    pathlib.Path
        The result JSON.

    Raises
    ------
    S3RouterError
        If a step fails; the text names it.
    """
    repository_root()
    root = _own_folder(Path(folder).resolve(), clean)
    languages = [run.language for run in MASKS]
    print("1/4 synthetic speech (eSpeak NG)")
    corpus = make_corpus(
        root / "corpus", languages, MINUTES, SEED, unit="minutes"
    )
    print("2/4 find a subnetwork a language; two contrasts on the first")
    runs = [*MASKS, *CONTRASTS]
    # The longest first, so that the two lanes end together.
    train_all([*CONTRASTS, *MASKS], root, corpus, EPOCHS)
    print("3/4 export to ONNX, compared with PyTorch")
    bundles = dict.fromkeys(MASKS, export_runs(MASKS, root, root / "bundle"))
    for run in CONTRASTS:
        bundles[run] = export_runs([run], root, root / f"bundle_{run.method}")
    print("4/4 transcribe the test sets with onnxruntime")
    rows = [measure(run, root, bundles[run]) for run in runs]
    result = write_result(
        root / "quickstart.json",
        config={
            "encoder": "tiny",
            "minutes": MINUTES,
            "data_folder": corpus.name,
            "speech": "synthetic",
            "number_of_epochs": EPOCHS,
        },
        seed=SEED,
        metrics={"rows": rows},
        command="make quickstart",
    )
    print()
    print(format_table(quickstart_rows(rows), QUICKSTART_COLUMNS))
    print(_next_steps(root, result, rows[0]))
    return result


def _own_folder(root: Path, clean: bool) -> Path:
    # Only a folder that a quickstart made is ever removed.
    marker = root / MARKER
    if root.exists() and not marker.is_file() and any(root.iterdir()):
        raise SettingError(
            f"{root} holds other things than a quickstart; choose another "
            f"--folder"
        )
    if clean and root.exists():
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    marker.write_text("Made by s3router quickstart; may be deleted.\n")
    return root


def _next_steps(root: Path, result: Path, row: dict) -> str:
    bundle = root / "bundle"
    provider = row["provider"]
    return f"""
Synthetic speech, so the rates say only that the chain works. Full tuning
stores an encoder for each language; a subnetwork is one bit a weight and a
head. onnxruntime ran on {provider}. The same as JSON: {result}

Next:
  s3router info {bundle}
  s3router transcribe {bundle} --language zh-CN YOUR.wav
  python recipes/commonvoice/train.py hparams/es_sparse.yaml \\
      --data_folder=/path/to/cv-corpus --encoder=tiny
  s3router export results/commonvoice/es/mask_tuning/1986/subnetwork \\
      --output bundle
"""
