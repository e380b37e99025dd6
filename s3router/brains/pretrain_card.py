"""Writes the model card of a pre-trained encoder from the run's own records.

Nothing in it is written by hand but what the encoder is not fit for. Numbers
measured on tasks are added between markers by whoever measures them.
"""

from collections.abc import Mapping
from pathlib import Path

from transformers import HubertModel

from s3router.brains.pretrain_stages import FRAMES_PER_SECOND
from s3router.formats.files import atomic_file, read_json, write_json

BEGIN, END = "<!-- worth -->", "<!-- /worth -->"

_UNFIT = """## What it is not fit for

- Recognising speech as it comes, in any language: it has no head, is small,
  and has heard {hours:.0f} hours, most of them the same clips again. It shows
  how methods compare; products want XLS-R or its like.
- Telling people apart, or anything about them: not measured.
- Judging synthetic against human speech: it has heard both.
- Far-field, telephone or overlapping speech, singing: hardly in the pool.
"""


def write_card(encoder: HubertModel, hparams: Mapping) -> None:
    """Write README.md into the encoder's folder.

    Arguments
    ---------
    encoder : HubertModel
        For its shape.
    hparams : mapping
        Of the recipe; its `work_folder` and `output_folder` hold the records.
    """
    folder = Path(hparams["encoder_folder"])
    pool = read_json(Path(hparams["work_folder"]) / "pool.json")
    stages = _stages(hparams)
    hours = sum(stage["hours"] for stage in stages)
    spent = sum(stage["seconds"] for stage in stages) / 3600
    text = "\n".join(
        [
            _head(encoder, hours, spent, hparams["weights_licence"]),
            _data(pool["sources"], hparams["sources"]),
            _training(stages, hparams),
            measured_worth(folder / "README.md"),
            _UNFIT.format(hours=hours),
        ]
    )
    write_json(folder / "curves.json", _curves(hparams))
    with atomic_file(folder / "README.md") as temporary:
        temporary.write_text(text, encoding="utf-8")


def _head(
    encoder: HubertModel, hours: float, spent: float, licence: str
) -> str:
    config = encoder.config
    million = sum(w.numel() for w in encoder.parameters()) / 1e6
    return f"""---
license: {licence}
library_name: transformers
tags: [hubert, speech, self-supervised]
---
# A tiny self-supervised speech encoder

HuBERT of {million:.1f} million parameters: {config.num_hidden_layers} blocks of
width {config.hidden_size}, feed-forward {config.intermediate_size},
{config.num_attention_heads} heads, pre-norm. 16 kHz, one vector every 20 ms.
Weights are stored as fp16 and meant to be used as fp32. Input is normalised to
zero mean and unit variance. Layer drop and dropout are 0.

Pre-trained by `recipes/pretrain` of s3router with `hparams/pretrain_tiny.yaml`
on {hours:.0f} hours of audio seen, in {spent:.2f} hours of CPU time.
Licence of the weights: {licence}; those of the recordings are below.

```python
from transformers import HubertModel

encoder = HubertModel.from_pretrained("s3router/assets/tiny")
```
"""


def _data(records: list[dict], sources: list[Mapping[str, str]]) -> str:
    lines = [
        "## Data",
        "",
        "Nothing but what is named here was heard, and no transcript was read.",
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


def _stages(hparams: Mapping) -> list[dict]:
    curves = Path(hparams["output_folder"]) / "curves"
    warm = read_json(curves / "warmup.json")["entries"][-1]
    clips = hparams["warmup_clips"] * hparams["warmup_seconds"]
    stages = [
        {
            "name": "mel warm-up",
            "hours": warm["step"] * clips / 3600,
            "seconds": warm["cpu_seconds"],
            "last": warm,
        }
    ]
    for number, iteration in enumerate(hparams["iterations"], start=1):
        entries = read_json(curves / f"iteration_{number}.json")["entries"]
        layer = iteration["of"]
        chosen = curves / f"layers_{number}.json"
        if chosen.is_file():
            layer = read_json(chosen)["chosen"]
        units = Path(hparams["work_folder"]) / f"units_{number}.u16.json"
        stages.append(
            {
                "name": f"{iteration['units']} units of "
                + (f"layer {layer}" if layer != "mfcc" else "MFCCs"),
                "hours": sum(entry["train_hours"] for entry in entries),
                "seconds": entries[-1]["cpu_seconds"],
                "last": entries[-1],
                "units": read_json(units),
            }
        )
    return stages


def _curves(hparams: Mapping) -> dict:
    files = sorted((Path(hparams["output_folder"]) / "curves").glob("*.json"))
    return {path.stem: read_json(path) for path in files}


def _training(stages: list[dict], hparams: Mapping) -> str:
    batch = hparams["batch_frames"] / FRAMES_PER_SECOND
    warm = stages[0]
    lines = [
        "## Training",
        "",
        f"The front end first regressed {hparams['mel_bins']} log mel bands "
        f"from degraded speech ({warm['hours']:.1f} hours, "
        f"{warm['seconds']:.0f} CPU seconds, held-out squared error "
        f"{warm['last']['valid_squared_error']:.2f} of 1) and was then frozen.",
        f"Batches of {batch:.0f} s, "
        f"{100 * hparams['degraded_share']:.0f} % of the crops degraded, "
        "targets of the clean clips. CPU time is that of one thread, for "
        "the trained stages; decoding, degrading, the front end's pass and "
        "labelling come on top.",
        "",
        "| stage | audio seen, h | CPU s | masked loss | masked accuracy | "
        "unmasked accuracy | unigram entropy | unigram accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages[1:]:
        last, units = stage["last"], stage["units"]
        lines.append(
            f"| {stage['name']} | {stage['hours']:.1f} | "
            f"{stage['seconds']:.0f} | {last['valid_masked_loss']:.2f} | "
            f"{last['valid_masked_accuracy']:.3f} | "
            f"{last['valid_unmasked_accuracy']:.3f} | "
            f"{units['unigram_entropy']:.2f} | "
            f"{units['unigram_accuracy']:.3f} |"
        )
    return "\n".join(
        [
            *lines,
            "",
            "Losses (nats) and accuracies are on held-out clips; a network "
            "that knew the units' frequencies only would have the unigram's. "
            "All curves: `curves.json`.",
            "",
        ]
    )


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
