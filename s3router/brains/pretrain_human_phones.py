"""Measures what units of an encoder tell about the phones that people spoke.

k-means on a layer, over the very clips that are measured, and on MFCCs as the
reference that needs no training. Works on any encoder that the loader takes,
in a run of pre-training or on its own. Phones are aligned once and kept.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from speechbrain.utils.logger import get_logger

from s3router.brains.pretrain_alignment import align_pack, without_speakers
from s3router.brains.pretrain_phones import clip_frames, phone_statistics
from s3router.data.phone_labels import EXTRA, read_phone_clips
from s3router.errors import S3RouterError, SettingError
from s3router.formats.files import read_json, sha256_file, write_json
from s3router.models.encoder import load_encoder
from s3router.models.frame_grid import FrameGrid
from s3router.models.ssl_encoder import SSLEncoder
from s3router.models.units import assign_units, fit_units, mfcc

logger = get_logger(__name__)

UNITS = 100
_KEYS = {"name", "manifests", "limit"}


def check_phone_labels(entries: Sequence[Mapping]) -> None:
    """Refuse entries of `phone_labels` that say too little.

    Arguments
    ---------
    entries : sequence of mapping
        See `measure_phones`.

    Raises
    ------
    SettingError
        Showing the entry.
    """
    for entry in entries:
        named = isinstance(entry, Mapping) and entry.keys() <= _KEYS
        if not (named and entry.get("name") and entry.get("manifests")):
            raise SettingError(
                f"phone_labels: each needs name and manifests, and may have "
                f"limit, not {entry}"
            )


def present(
    entries: Sequence[Mapping], data_folder: str | os.PathLike | None
) -> list[Mapping]:
    """Return the entries whose files are there; log a line for each other.

    Arguments
    ---------
    entries : sequence of mapping
        See `measure_phones`.
    data_folder : str or path or None
        See `measure_phones`.

    Returns
    -------
    list of mapping
        In their order.
    """
    kept = []
    for entry in entries:
        if data_folder is None:
            logger.info("phones of %s: no data_folder", entry["name"])
            continue
        manifests = [Path(data_folder, path) for path in entry["manifests"]]
        files = [*manifests, *(path.parent / EXTRA for path in manifests)]
        absent = [path for path in files if not path.is_file()]
        if absent:
            logger.info("phones of %s: no file %s", entry["name"], absent[0])
        else:
            kept.append(entry)
    return kept


def measure_phones(
    encoder: SSLEncoder,
    entries: Sequence[Mapping],
    data_folder: str | os.PathLike | None,
    memory: str | os.PathLike,
    units: int = UNITS,
    layer: int | None = None,
    seed: int = 0,
) -> dict:
    """Measure units of a layer, and of MFCCs, against phones of people.

    Arguments
    ---------
    encoder : SSLEncoder
        As of `load_encoder`; not changed.
    entries : sequence of mapping
        Each with `name`; `manifests`, CSV files under `data_folder`, see
        `read_phone_clips`; and `limit`, clips drawn of each, if not all. One
        whose files are absent is left out.
    data_folder : str or path or None
        None: there are none.
    memory : str or path
        Folder of the aligned phones, `phones_<name>.json`.
    units : int
        Of k-means.
    layer : int or None
        0 is the transformer's input; None: the last one.
    seed : int
        Of the draw and of k-means.

    Returns
    -------
    dict
        `units`, `layer` and `packs`: by name `clips`, and `encoder` and
        `mfcc` as of `phone_statistics`.

    Raises
    ------
    SettingError
        If an entry says too little, or there is no such layer.
    DataError
        If a manifest or a clip is broken, or has fewer frames than units.
    """
    check_phone_labels(entries)
    layers = encoder.num_layers
    layer = layers if layer is None else layer
    if not 0 <= layer <= layers:
        raise SettingError(f"there is no layer {layer}: 0 to {layers}")
    grid = FrameGrid.of(encoder.model.config)
    packs = {}
    for entry in present(entries, data_folder):
        manifests = [Path(data_folder, path) for path in entry["manifests"]]
        aligned = align_pack(
            manifests,
            Path(memory) / f"phones_{entry['name']}.json",
            entry.get("limit"),
            seed,
        )
        speakers = {
            clip.id: clip.speaker
            for path in manifests
            for clip in read_phone_clips(path)
        }
        kept, phones = clip_frames(
            (layer_of(encoder, layer), _mfcc_on(grid)), aligned, grid
        )
        states, spectra = zip(*kept.values(), strict=True)
        spectra = without_speakers(spectra, [speakers[name] for name in kept])
        packs[entry["name"]] = {
            "clips": len(kept),
            "encoder": _statistics(states, phones, units, seed),
            "mfcc": _statistics(spectra, phones, units, seed),
        }
    return {"units": units, "layer": layer, "packs": packs}


def layer_of(
    encoder: SSLEncoder, layer: int
) -> Callable[[np.ndarray], np.ndarray]:
    """Return what gives a clip's states in a layer.

    Arguments
    ---------
    encoder : SSLEncoder
        The last layer is its output, with the layer norm that ends it.
    layer : int
        0 is the transformer's input.

    Returns
    -------
    callable
        (samples,) float32 at 16 kHz to (frames, width) float32.
    """
    device = next(encoder.parameters()).device

    @torch.no_grad()
    def states(samples: np.ndarray) -> np.ndarray:
        wave = torch.from_numpy(samples)[None].to(device)
        found = encoder.hidden_states(*encoder.front_end(wave))
        return found[layer][0].float().cpu().numpy()

    return states


def _mfcc_on(grid: FrameGrid) -> Callable[[np.ndarray], np.ndarray]:
    return lambda samples: mfcc(torch.from_numpy(samples), grid=grid).numpy()


def _statistics(
    frames: Sequence[np.ndarray], phones: np.ndarray, units: int, seed: int
) -> dict[str, float | int]:
    together = np.concatenate(frames)
    centres = fit_units(together, units, seed)
    return phone_statistics(assign_units(together, centres), phones)


def phones_record(hparams: Mapping) -> Path:
    """Return where a run writes what was measured."""
    return Path(hparams["output_folder"], "curves", "phones.json")


def measure_run(hparams: Mapping, device: str = "cpu") -> None:
    """Measure the encoder that a run wrote, once.

    A fault in the labels costs the measure, not the run: it is logged.

    Arguments
    ---------
    hparams : mapping
        Of the recipe; `phone_labels`, `data_folder` and its folders.
    device : str
        Where the encoder runs.
    """
    entries = present(hparams["phone_labels"], hparams["data_folder"])
    if not entries:
        return
    folder = Path(hparams["encoder_folder"])
    made_with = {
        "weights": sha256_file(folder / "model.safetensors"),
        "phone_labels": [dict(entry) for entry in entries],
    }
    record = phones_record(hparams)
    if record.is_file():
        known = read_json(record)
        if all(known.get(name) == value for name, value in made_with.items()):
            return
    try:
        found = measure_phones(
            load_encoder(str(folder)).to(device),
            entries,
            hparams["data_folder"],
            hparams["work_folder"],
            seed=hparams["seed"],
        )
    except S3RouterError as error:
        logger.warning("phones were not measured: %s", error)
        return
    write_json(record, {"format_version": 1, **made_with, **found})
