"""Writes the model card of a pre-trained encoder from the run's own records.

Nothing in it is written by hand but what the encoder is not fit for. Numbers
measured on tasks are added between markers by whoever measures them.
"""

from collections.abc import Mapping
from pathlib import Path

from transformers import PreTrainedModel

from s3router.brains.pretrain_human_phones import phones_record
from s3router.brains.pretrain_records import stage_records, training_section
from s3router.brains.pretrain_snapshots import CURVES, snapshots
from s3router.formats.files import atomic_file, read_json, write_json
from s3router.models.frame_grid import RATE, FrameGrid

BEGIN, END = "<!-- worth -->", "<!-- /worth -->"

_UNFIT = """## What it is not fit for

- Recognising speech as it comes, in any language: it has no head, is small,
  and has heard {hours:.0f} hours, most of them the same clips again. It shows
  how methods compare; products want XLS-R or its like.
- Telling people apart, or anything about them: not measured.
- Judging synthetic against human speech: it has heard both.
- Far-field, telephone or overlapping speech, singing: hardly in the pool.
"""


_PHONES = """## Phones of people in its units

{units} units of k-means on the last layer, and on MFCCs normalised by speaker,
fitted on the very clips that are measured. Their phones, which training did not
see, were aligned with Gaussian mixtures on MFCCs: the times are not exact, and
favour MFCCs.
PNMI is phone-normalised mutual information; by chance, that of shuffled units;
phone purity, frames whose phone is the commonest of their unit; cluster purity,
frames whose unit is the commonest of their phone; a single unit would have the
commonest phone's purity. Frames of pauses are left out.

| clips | units of | PNMI | by chance | phone purity | cluster purity | \
commonest phone | frames |
| --- | --- | --- | --- | --- | --- | --- | --- |
{rows}
"""


def write_card(encoder: PreTrainedModel, hparams: Mapping) -> None:
    """Write README.md into the encoder's folder.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        For its shape.
    hparams : mapping
        Of the recipe; its `work_folder` and `output_folder` hold the records.
    """
    folder = Path(hparams["encoder_folder"])
    pool = read_json(Path(hparams["work_folder"]) / "pool.json")
    stages = stage_records(hparams)
    hours = sum(stage["hours"] for stage in stages)
    training = training_section(stages, hparams)
    text = "\n".join(
        [
            _head(encoder, hours, _compute(stages), hparams),
            _data(pool["sources"], hparams["sources"]),
            training,
            _phones(hparams),
            _snapshots(hparams["output_folder"]),
            measured_worth(folder / "README.md"),
            _UNFIT.format(hours=hours),
        ]
    )
    write_json(folder / CURVES, _curves(hparams))
    with atomic_file(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _compute(stages: list[dict]) -> str:
    """Return the hours of CPU time, or those on each kind of GPU."""
    spent: dict[str, float] = {}
    for stage in stages:
        name = stage["machine"]
        spent[name] = spent.get(name, 0.0) + stage["seconds"] / 3600
    return " and ".join(
        f"{hours:.2f} hours of CPU time"
        if name == "cpu"
        else f"{hours:.2f} hours on {name}"
        for name, hours in spent.items()
    )


def _head(
    encoder: PreTrainedModel, hours: float, compute: str, hparams: Mapping
) -> str:
    config = encoder.config
    licence = hparams["weights_licence"]
    family = {"hubert": "HuBERT", "wav2vec2": "wav2vec 2.0"}[config.model_type]
    norm = "pre-norm" if config.do_stable_layer_norm else "post-norm"
    spacing = 1000 * FrameGrid.of(config).hop // RATE
    million = sum(w.numel() for w in encoder.parameters()) / 1e6
    name = type(encoder).__name__
    return f"""---
license: {licence}
library_name: transformers
tags: [{config.model_type}, speech, self-supervised]
---
# A tiny self-supervised speech encoder

{family} of {million:.1f} million parameters:
{config.num_hidden_layers} blocks of width {config.hidden_size}, feed-forward
{config.intermediate_size}, {config.num_attention_heads} heads, {norm}. 16 kHz,
one vector every {spacing} ms. Weights are stored as fp16 and meant to be used
as fp32. Input is normalised to zero mean and unit variance. Layer drop is 0,
dropout in the blocks {config.hidden_dropout:g}.

Pre-trained by `recipes/pretrain` of s3router with `hparams/pretrain_tiny.yaml`
on {hours:.0f} hours of audio seen, in {compute}.
Licence of the weights: {licence}; those of the recordings are below.

```python
from transformers import {name}

encoder = {name}.from_pretrained("{_example(hparams)}")
```
"""


def _example(hparams: Mapping) -> str:
    # Not this machine's path: the folder will be copied.
    shipped = Path(hparams["encoder_folder"]).name == "tiny"
    return "s3router/assets/tiny" if shipped else "encoder"


def _data(records: list[dict], sources: list[Mapping[str, str]]) -> str:
    lines = [
        "## Data",
        "",
        "Nothing but what is named here was heard, and no transcript was read "
        "in training.",
        "",
        "| source | licence | languages | speakers or voices | hours |",
        "| --- | --- | --- | --- | --- |",
    ]
    for record in records:
        lines.append(
            f"| {record['source']} | {record['licence']} | "
            f"{' '.join(record['languages'])} | {record['speakers']} | "
            f"{record['hours']:.2f} |"
        )
    total = sum(record["hours"] for record in records)
    lines += [f"| total | | | | {total:.2f} |", ""]
    credits = [s for s in sources if s.get("credit")]
    if credits:
        lines += ["Credit for the recordings, which were degraded and cut:", ""]
        lines += [f"- {s['manifest']}: {s['credit']}" for s in credits]
        lines.append("")
    return "\n".join(lines)


def _phones(hparams: Mapping) -> str:
    """Return the section on phones of people, if they were measured."""
    record = phones_record(hparams)
    if not record.is_file():
        return ""
    found = read_json(record)
    lines = [
        f"| {name} | {of} | {numbers['pnmi']:.3f} | "
        f"{numbers['pnmi_by_chance']:.3f} | {numbers['phone_purity']:.3f} | "
        f"{numbers['cluster_purity']:.3f} | {numbers['commonest_phone']:.3f} | "
        f"{numbers['frames']} |"
        for name, pack in found["packs"].items()
        for of, numbers in (
            (f"layer {found['layer']}", pack["encoder"]),
            ("MFCCs", pack["mfcc"]),
        )
    ]
    return _PHONES.format(units=found["units"], rows="\n".join(lines))


def _curves(hparams: Mapping) -> dict:
    files = sorted((Path(hparams["output_folder"]) / "curves").glob("*.json"))
    return {path.stem: read_json(path) for path in files}


def _snapshots(output_folder: str) -> str:
    found = snapshots(output_folder)
    if not found:
        return ""
    listed = ", ".join(f"{name} ({hours:.1f})" for name, hours in found)
    return f"""## Snapshots

The run also kept the encoder as it was along the way. Folders, and the hours
of audio seen behind the warm-up: {listed}.
"""


def measured_worth(card: Path) -> str:
    """Return the section of measured worth.

    Arguments
    ---------
    card : pathlib.Path
        A card that may be there already; what stands between its markers,
        written by whoever measured it, is kept.

    Returns
    -------
    str
        Markdown, with the markers.
    """
    inner = "Not measured yet."
    if card.is_file():
        old = card.read_text(encoding="utf-8")
        if BEGIN in old and END in old:
            inner = old.split(BEGIN, 1)[1].split(END, 1)[0].strip()
    return f"""## Measured worth

On real speech of unseen speakers, against the same network with random
weights, under every method. Where the labelled training clips come from a
source named above, they were heard here too, without their labels. Clips of
its dev and test parts were not, nor their speakers where it has several.

{BEGIN}
{inner}
{END}
"""
