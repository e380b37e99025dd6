"""What a frozen encoder's features hold: linear probes, layer by layer.

Layers, steps and penalties are chosen on dev; test is read for the last
layer and for the layer that is best on dev.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from encoder_classify import probe_classes
from encoder_ctc_probe import CTCProbe
from encoder_data import SPLITS, Clip, load_task, read_pack, spread
from encoder_features import FeatureStore
from encoder_layers import last_layer, pooled_states

from s3router.errors import NotFoundError
from s3router.models.ssl_encoder import SSLEncoder

#: Packs of many speakers. A pack is a way of recording too, so that what
#: tells the languages apart may be the room; zh_dsp20 holds two languages of
#: one recording. Cut to equal lengths, which would tell the packs apart.
LANGUAGE_PACKS = (
    "ar_commands",
    "en_speechocean",
    "is_samromur",
    "ml_msc",
    "zh_dsp20",
)
CROP_SECONDS = 1.0
#: To be raised when results of the same settings change.
VERSION = 2
#: Clips of each pack for the languages, by split.
LANGUAGE_CLIPS = {"train": 200, "dev": 60, "test": 100}


@dataclass(frozen=True)
class ProbeSizes:
    """How much a probe sees; less for a quick look.

    Arguments
    ---------
    clips : int, optional
        At most so many of each split; None: all.
    minutes : float
        Labelled minutes of the CTC probes, at most.
    steps : tuple of int
        Optimizer steps that CTC probes choose from; the layer is chosen with
        the second.
    """

    clips: int | None = None
    minutes: float = 20.0
    steps: tuple[int, ...] = (500, 2000, 6000)


def run_probe(
    name: str,
    encoder: SSLEncoder,
    data: Path,
    store: FeatureStore,
    sizes: ProbeSizes,
) -> dict[str, object]:
    """Run one probe.

    Arguments
    ---------
    name : str
        A key of `PROBES`.
    encoder : SSLEncoder
        Frozen, never changed.
    data : pathlib.Path
        The folder of packs.
    store : FeatureStore
        Of this encoder's front-end features.
    sizes : ProbeSizes
        How much is seen.

    Returns
    -------
    dict
        `dev_by_layer`, and for the `last` and the `best` layer its number,
        `dev`, `chosen` and `test` with its interval.
    """
    started = time.perf_counter()
    result = PROBES[name](encoder, data, store, sizes)
    result["seconds"] = round(time.perf_counter() - started, 1)
    return {"probe": name, **result}


def _classes(
    make: Callable[[Path, int | None], dict[str, list[Clip]]],
    about: str,
    crop: float | None,
    encoder: SSLEncoder,
    data: Path,
    store: FeatureStore,
    sizes: ProbeSizes,
) -> dict[str, object]:
    splits = make(data, sizes.clips)
    states = {}
    for split, clips in splits.items():
        features = store.build(f"probe-{split}", clips, crop=crop)
        states[split] = pooled_states(encoder, features, clips)
    labels = {s: [c.text for c in clips] for s, clips in splits.items()}
    speakers = [clip.speaker for clip in splits["test"]]
    return {
        "measure": "accuracy",
        "about": about,
        **probe_classes(states, labels, speakers),
    }


def keyword_clips(data: Path, most: int | None) -> dict[str, list[Clip]]:
    """Return clips of spoken commands; the class is the command."""
    task = load_task("ar_commands", data)
    return {split: spread(getattr(task, split), most) for split in SPLITS}


def speaker_clips(data: Path, most: int | None) -> dict[str, list[Clip]]:
    """Return clips of zh_dsp20; the class is the speaker, in all splits."""
    splits = {}
    for split in SPLITS:
        clips = spread(read_pack(data, "zh_dsp20", f"spkid_{split}"), most)
        splits[split] = [replace(clip, text=clip.speaker) for clip in clips]
    return splits


def language_clips(data: Path, most: int | None) -> dict[str, list[Clip]]:
    """Return clips of many packs; the class is the language."""
    packs = [p for p in LANGUAGE_PACKS if (data / p / "train.csv").is_file()]
    if len(packs) < 2:
        raise NotFoundError(
            f"the probe of languages needs two of the packs "
            f"{', '.join(LANGUAGE_PACKS)}; {data} has {len(packs)}"
        )
    splits: dict[str, list[Clip]] = {split: [] for split in SPLITS}
    for split, count in LANGUAGE_CLIPS.items():
        for pack in packs:
            limit = count if most is None else min(count, most)
            for clip in spread(read_pack(data, pack, split), limit):
                splits[split].append(replace(clip, text=clip.language))
    return splits


def _ctc(
    task_name: str,
    minutes: float | None,
    about: str,
    encoder: SSLEncoder,
    data: Path,
    store: FeatureStore,
    sizes: ProbeSizes,
) -> dict[str, object]:
    task = load_task(task_name, data, sizes.clips)
    if minutes is not None:
        minutes = min(minutes, sizes.minutes)
    splits = {
        "train": task.draw(minutes, seed=0),
        "dev": task.dev,
        "test": task.test,
    }
    features = {
        split: store.build(f"probe-{task_name}-{split}", clips)
        for split, clips in splits.items()
    }
    tokens = task.tokens(splits["train"])
    unit = task.settings.unit
    probe = CTCProbe(encoder, unit, splits, features, tokens)
    dev_by_layer = [
        rate.rate for rate in probe.dev_of_all_layers(sizes.steps[1])
    ]
    best = int(np.argmin(dev_by_layer))
    result = {
        "measure": task.settings.measure,
        "about": about,
        "labelled_seconds": round(sum(c.seconds for c in splits["train"]), 1),
        "dev_by_layer": dev_by_layer,
        "last": probe.test(last_layer(encoder), sizes.steps),
    }
    same = best == last_layer(encoder)
    result["best"] = result["last"] if same else probe.test(best, sizes.steps)
    return result


PROBES: dict[str, Callable] = {
    "phones": partial(
        _ctc,
        "en_speechocean",
        20.0,
        "linear CTC on 39 phones of read English, speakers unseen",
    ),
    "keywords": partial(
        _classes,
        keyword_clips,
        "mean over time, 40 Arabic commands, speakers unseen",
        None,
    ),
    "speakers": partial(
        _classes,
        speaker_clips,
        "mean over time, 30 speakers of single words; a speaker is also a "
        "microphone",
        None,
    ),
    "languages": partial(
        _classes,
        language_clips,
        "mean over the middle second, speakers unseen; a language is also a "
        "way of recording, but for zh and a part of en",
        CROP_SECONDS,
    ),
    "words": partial(
        _ctc,
        "zh_dsp20",
        10.0,
        "linear CTC on characters of 20 words, 10 minutes, speakers unseen",
    ),
    "sentences": partial(
        _ctc,
        "is_samromur",
        None,
        "linear CTC on characters of Icelandic sentences, speakers unseen",
    ),
}
