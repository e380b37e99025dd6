"""Everything there is to measure of a bundle, as one nest of plain values.

Ratios are of minima, between the subject and what took turns with it; both
stand beside the ratio.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from s3router.errors import S3RouterError
from s3router.formats.bundle import Bundle
from s3router.runtime.benchmark import (
    Device,
    Subject,
    measure,
    measure_switch,
)
from s3router.runtime.session import MODES


def benchmark_bundle(
    folder: str,
    clips: Mapping[str, tuple[str, float]],
    devices: Sequence[Device],
    languages: Sequence[str] = (),
    modes: Sequence[str] = MODES,
    dense: Subject | None = None,
    rounds: int = 2,
    repeats: int = 2,
    log: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a bundle.

    Arguments
    ---------
    folder : str
        The bundle.
    clips : mapping of str to tuple of str and float
        Name to a `.npy` file of `(samples,)` float32, and its seconds.
    devices : sequence of Device
        What to run on; memory and loading are told for the first.
    languages : sequence of str
        Codes; all, if none are given.
    modes : sequence of str
        How weights are held. One that the bundle cannot be opened in gives
        its reason.
    dense : Subject, optional
        What to compare with: the encoder without masks.
    rounds : int
        How often each is loaded, in fresh processes.
    repeats : int
        How often each clip is run in each of them.
    log : callable
        Is told of progress, one line at a time.

    Returns
    -------
    dict
        "bundle": what it is, and its sizes; "rows": one for each language and
        mode, see `measure_row`; "modes": one for each mode, see
        `measure_modes`.

    Raises
    ------
    S3RouterError
        If the bundle is damaged, or a language is not in it.
    """
    bundle = Bundle.load(folder)
    # Else a damaged file would be a reason in each row.
    bundle.verify()
    codes = [bundle.language(code) for code in languages or bundle.languages]
    rows = []
    for code in codes:
        for mode in modes:
            log(f"{code}, {mode}")
            subject = Subject(folder, code, mode)
            row = measure_row(subject, clips, devices, dense, rounds, repeats)
            rows.append({"own_bytes": own_bytes(bundle, code), **row})
    return {
        "bundle": describe_sizes(bundle),
        "rows": rows,
        "modes": list(measure_modes(folder, codes[0], modes)),
    }


def describe_sizes(bundle: Bundle) -> dict[str, Any]:
    """Return what a bundle is and its bytes.

    Arguments
    ---------
    bundle : Bundle
        As loaded.

    Returns
    -------
    dict
        "layout", "precision", "encoder" (its name), "bytes" of all files that
        the manifest lists, and "languages": the bytes of the files that no
        other language opens.
    """
    return {
        "layout": bundle.layout,
        "precision": bundle.precision,
        "encoder": bundle.encoder.get("name"),
        "bytes": sum(file["bytes"] for file in bundle.files.values()),
        "languages": {c: own_bytes(bundle, c) for c in bundle.languages},
    }


def own_bytes(bundle: Bundle, code: str) -> int:
    """Return the bytes of the files that no other language opens."""
    return sum(bundle.files[name]["bytes"] for name in bundle.own_files(code))


def measure_row(
    subject: Subject,
    clips: Mapping[str, tuple[str, float]],
    devices: Sequence[Device],
    dense: Subject | None = None,
    rounds: int = 2,
    repeats: int = 2,
) -> dict[str, Any]:
    """Measure a language in a mode, on all devices.

    Arguments
    ---------
    subject : Subject
        What is measured.
    clips : mapping of str to tuple of str and float
        Name to a `.npy` file of `(samples,)` float32, and its seconds.
    devices : sequence of Device
        What to run on.
    dense : Subject, optional
        What to compare with.
    rounds, repeats : int
        As for `measure`.

    Returns
    -------
    dict
        "language", "mode", "why_not" (None, or why nothing was measured),
        "load" (seconds), "before", "loaded" and "run" (memory, see
        `memory_use`), "opened" (bytes of private memory that opening added),
        "dense" (the same of what it is compared with), "load_of_dense",
        "opened_of_dense"; and "devices", by name: "why_not", "clock", and
        "clips": by name "seconds" of audio, "wall" and "cpu", "dense",
        "real_time_factor", "of_dense".
    """
    named = {"language": subject.language, "mode": subject.mode}
    paths = {name: path for name, (path, _) in clips.items()}
    on: dict[str, Any] = {}
    loading: dict[str, Any] = {}
    for device in devices:
        why_not = device.why_not()
        if why_not is None:
            try:
                found = measure(subject, device, paths, dense, rounds, repeats)
                loading = loading or _loading(found)
                on[device.name] = _speeds(found, device, clips)
                continue
            except S3RouterError as error:
                why_not = str(error)
        on[device.name] = {"why_not": why_not}
    # Where nothing worked, the reason of the first device is that of all.
    why_not = None if loading else on[devices[0].name]["why_not"]
    return {**named, "why_not": why_not, **loading, "devices": on}


def measure_modes(
    folder: str, code: str, modes: Sequence[str], threads: int = 1
) -> Iterator[dict[str, Any]]:
    """Measure the change of language in each mode.

    Arguments
    ---------
    folder : str
        The bundle.
    code : str
        The language to begin with.
    modes : sequence of str
        How weights are held.
    threads : int
        Of the CPU.

    Yields
    ------
    dict
        "mode", "why_not", and what `measure_switch` returns, of the first
        other language that the mode can hold.
    """
    bundle = Bundle.load(folder)
    others = [other for other in bundle.languages if other != code]
    for mode in modes:
        if not others:
            yield {"mode": mode, "why_not": "the bundle has one language"}
            continue
        subject = Subject(folder, code, mode)
        yield {"mode": mode, **_change(subject, others, threads)}


def _change(
    subject: Subject, others: Sequence[str], threads: int
) -> dict[str, Any]:
    """Measure the change to the first of some languages that can be."""
    device, reasons = Device("", threads=threads), []
    for other in others:
        try:
            found = measure_switch(subject, [other, subject.language], device)
            return {"why_not": None, **found}
        except S3RouterError as error:
            reasons.append(str(error))
        # What is said of two languages is the fault of neither.
        if reasons[-1] in reasons[:-1]:
            break
    return {"why_not": reasons[0]}


def _loading(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return what loading took, in time and memory, beside the reference."""
    parts = ("load", "before", "loaded", "run")
    sides = {
        name: {
            **{part: side[part] for part in parts},
            "opened": _less(side["loaded"], side["before"]),
        }
        for name, side in found.items()
    }
    told = sides["subject"]
    if dense := sides.get("reference"):
        told["dense"] = dense
        told["load_of_dense"] = _ratio(told["load"], dense["load"], "cpu")
        if told["opened"] is not None and dense["opened"]:
            told["opened_of_dense"] = told["opened"] / dense["opened"]
    return told


def _speeds(
    found: Mapping[str, Any],
    device: Device,
    clips: Mapping[str, tuple[str, float]],
) -> dict[str, Any]:
    """Return the speed of each clip, beside the reference."""
    told: dict[str, Any] = {}
    for name, (_, seconds) in clips.items():
        spent = found["subject"]["clips"][name]
        told[name] = {
            "seconds": seconds,
            **spent,
            "real_time_factor": spent[device.clock]["minimum"] / seconds,
        }
        if reference := found.get("reference"):
            dense = reference["clips"][name]
            told[name]["dense"] = dense
            told[name]["of_dense"] = _ratio(spent, dense, device.clock)
    return {"why_not": None, "clock": device.clock, "clips": told}


def _ratio(
    one: Mapping[str, Any], other: Mapping[str, Any], clock: str
) -> float:
    return one[clock]["minimum"] / other[clock]["minimum"]


def _less(
    after: Mapping[str, int | None], before: Mapping[str, int | None]
) -> int | None:
    if after["private"] is None or before["private"] is None:
        return None
    return after["private"] - before["private"]
