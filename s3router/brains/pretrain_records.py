"""What a pre-training run noted about its stages, as a section of its card."""

from collections.abc import Mapping
from pathlib import Path

from s3router.brains.pretrain_phone_units import unit_count
from s3router.brains.pretrain_snapshots import stage_names
from s3router.formats.files import read_json
from s3router.models.filterbank import SHORTEST_KERNEL

_DEGRADED = """\
Batches of {batch:g} s on each of {processes} process(es). {share:.0f} % of the
crops come from {versions} degraded copies of the pool (other speeds, -17 to
+19 %, pitch included, and noise, another talker or a room); their targets are
those of the clean clip. Seconds are those of the trained stages: decoding,
degrading, the front end's pass and labelling come on top.
"""

_WARM = """\
{start}The front end learned {bins} log mel bands of what it heard
({hours:.1f} hours, {seconds:.0f} s, held-out squared error {error:.2f} of 1)
and was then frozen.
"""

_FILTERBANK = """\
The first convolution began as a bank of band-pass filters, evenly spaced in
mel.
"""

_GUIDED = """\
Units of a layer were found in the {directions} directions in which that layer
tells phones apart best (linear discriminant analysis). The phones are those of
{sentences} made-up sentences, spoken by eSpeak NG, whose phones are known. No
human speech was labelled, but labels of synthetic speech shape the targets: it
is not purely unsupervised.
"""

_CHOSEN = """\
Layers were chosen by phone-normalised mutual information (PNMI) on one half of
{sentences} made-up sentences that eSpeak NG spoke.
"""

_PHONES = """\
The first targets were the phones of the synthetic speech, which eSpeak NG
tells with their times; only synthetic clips were heard then. No human speech
was labelled, but labels of synthetic speech shaped the network: it is not
purely unsupervised.
"""

_SEEDS = {"mfcc": "MFCCs", "phones": "phones of synthetic speech"}

_READ_UNITS = """\
Losses (nats) and accuracies are on held-out clips; a network that knew the
units' frequencies only would have the unigram's. All curves: `curves.json`.
"""

_READ_CONTRASTIVE = """\
On held-out clips: accuracy is how often the quantised frame was told from all
of its distractors, chance what guessing would reach, perplexity how many of
the {entries} codebook entries a batch uses. All curves: `curves.json`.
"""


def stage_records(hparams: Mapping) -> list[dict]:
    """Return what is known of each stage, the warm-up first.

    Arguments
    ---------
    hparams : mapping
        Of the recipe; its `work_folder` and `output_folder` hold the records.

    Returns
    -------
    list of dict
        `name`, `hours` of audio seen, `seconds` on `machine` ("cpu": CPU
        seconds, else wall clock), `processes`, `last` entry of the curve, and
        for units their statistics and `layers`, as they were measured.
    """
    curves = Path(hparams["output_folder"]) / "curves"
    warm = read_json(curves / "warmup.json")
    clips = hparams["warmup_clips"] * hparams["warmup_seconds"]
    clips *= warm.get("processes", 1)
    hours = warm["entries"][-1]["step"] * clips / 3600
    records = [{**_stage(warm), "name": "mel warm-up", "hours": hours}]
    for number, name in enumerate(stage_names(hparams)):
        curve = read_json(curves / f"{name}.json")
        record = _stage(curve)
        record["hours"] = sum(e["train_hours"] for e in curve["entries"])
        if hparams["objective"] == "hubert":
            record.update(_units(number + 1, hparams))
        else:
            record["name"] = "contrastive"
        records.append(record)
    return records


def _stage(curve: Mapping) -> dict:
    last = curve["entries"][-1]
    name = curve.get("machine", "cpu")
    seconds = last["cpu_seconds" if name == "cpu" else "wall_seconds"]
    return {
        "machine": name,
        "processes": curve.get("processes", 1),
        "seconds": seconds,
        "last": last,
    }


def _units(number: int, hparams: Mapping) -> dict:
    iteration = hparams["iterations"][number - 1]
    layer = iteration["of"]
    path = Path(hparams["output_folder"], "curves", f"layers_{number}.json")
    layers = read_json(path) if path.is_file() else None
    if layers is not None:
        layer = layers["chosen"]
    statistics = Path(hparams["work_folder"]) / f"units_{number}.u16.json"
    units = read_json(statistics)
    count = unit_count(number, hparams)
    of = _SEEDS.get(layer, f"layer {layer}")
    name = f"{count} units of {of}"
    if iteration.get("keep_phones"):
        name = f"known phones, elsewhere {iteration['units']} units of {of}"
    return {
        "name": name,
        "units": units,
        "layers": layers,
    }


def training_section(stages: list[dict], hparams: Mapping) -> str:
    """Return the section on training.

    Arguments
    ---------
    stages : list of dict
        As of `stage_records`.
    hparams : mapping
        Of the recipe.

    Returns
    -------
    str
        Markdown.
    """
    warm = stages[0]
    kernel = hparams["encoder_config"].conv_kernel[0]
    lines = [
        "## Training",
        "",
        _WARM.format(
            start=_FILTERBANK if kernel >= SHORTEST_KERNEL else "",
            bins=hparams["mel_bins"],
            hours=warm["hours"],
            seconds=warm["seconds"],
            error=warm["last"]["valid_squared_error"],
        ),
        _DEGRADED.format(
            batch=hparams["batch_seconds"],
            processes=stages[-1]["processes"],
            share=100 * hparams["degraded_share"],
            versions=hparams["degraded_versions"],
        ),
    ]
    if hparams["objective"] == "hubert":
        lines += _guidance(stages, hparams) + _table_of_units(stages)
        lines.append(_READ_UNITS)
    else:
        settings = hparams["contrastive"]
        lines += _table_of_contrasts(stages)
        entries = settings["codebooks"] * settings["codes"]
        lines.append(_READ_CONTRASTIVE.format(entries=entries))
    return "\n".join(lines)


def _guidance(stages: list[dict], hparams: Mapping) -> list[str]:
    of_layers = [i for i in hparams["iterations"] if i["of"] not in _SEEDS]
    lines = []
    if any(i["of"] == "phones" for i in hparams["iterations"]):
        lines.append(_PHONES)
    if of_layers and hparams["phone_directions"]:
        lines.append(
            _GUIDED.format(
                directions=hparams["phone_directions"],
                sentences=hparams["known_sentences"],
            )
        )
    if any(stage.get("layers") for stage in stages):
        lines.append(_CHOSEN.format(sentences=hparams["known_sentences"]))
    return lines


def _table_of_units(stages: list[dict]) -> list[str]:
    lines = [
        "| stage | PNMI | audio seen, h | s | masked loss | masked accuracy | "
        "unmasked accuracy | unigram entropy | unigram accuracy |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages[1:]:
        last, units, layers = stage["last"], stage["units"], stage["layers"]
        measured = ""
        if layers and "phone_information" in layers:
            measured = f"{layers['phone_information'][layers['chosen']]:.2f}"
        lines.append(
            f"| {stage['name']} | {measured} | {stage['hours']:.1f} | "
            f"{stage['seconds']:.0f} | {last['valid_masked_loss']:.2f} | "
            f"{last['valid_masked_accuracy']:.3f} | "
            f"{last['valid_unmasked_accuracy']:.3f} | "
            f"{units['unigram_entropy']:.2f} | "
            f"{units['unigram_accuracy']:.3f} |"
        )
    return [*lines, ""]


def _table_of_contrasts(stages: list[dict]) -> list[str]:
    lines = [
        "| stage | audio seen, h | s | contrastive loss | accuracy | chance | "
        "perplexity |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for stage in stages[1:]:
        last = stage["last"]
        lines.append(
            f"| {stage['name']} | {stage['hours']:.1f} | "
            f"{stage['seconds']:.0f} | "
            f"{last['valid_contrastive_loss']:.2f} | "
            f"{last['valid_contrastive_accuracy']:.3f} | "
            f"{last['valid_contrastive_chance']:.3f} | "
            f"{last['valid_code_perplexity']:.0f} |"
        )
    return [*lines, ""]
