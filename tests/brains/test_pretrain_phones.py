"""Measures of units against phones, and the labels that they rest on."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from sklearn.metrics import mutual_info_score

from s3router.brains.pretrain_alignment import align_pack
from s3router.brains.pretrain_phones import (
    clip_frames,
    phone_information,
    phone_statistics,
)
from s3router.data.espeak import synthesize_phones
from s3router.data.synthetic_text import sentences
from s3router.errors import DataError, FormatError, MismatchError
from s3router.models.frame_grid import FrameGrid
from s3router.models.phone_alignment import AlignedClip, AlignerSettings
from s3router.models.units import SPECTRA

SLOW = FrameGrid(window=720, hop=640)
QUICK = AlignerSettings(plain_turns=2, turns=0)


@pytest.fixture
def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Return units that know something of the phones, and the phones."""
    generator = np.random.default_rng(1)
    truth = generator.integers(0, 6, 3000)
    noise = generator.integers(0, 12, 3000)
    units = np.where(generator.random(3000) < 0.6, 2 * truth, noise)
    return units, np.array(["", "a", "b", "cc", "d", "e"])[truth]


def test_pnmi_is_that_of_other_hands(drawn: tuple) -> None:
    units, phones = drawn
    heard = phones != ""
    units, spoken = units[heard], phones[heard]
    entropy = mutual_info_score(spoken, spoken)
    expected = mutual_info_score(units, spoken) / entropy
    assert phone_information(units, spoken) == pytest.approx(expected)
    found = phone_statistics(*drawn)
    assert found["pnmi"] == pytest.approx(expected)
    assert 0 < found["pnmi_by_chance"] < 0.02 < found["pnmi"]


def test_purities_are_counted_frame_by_frame(drawn: tuple) -> None:
    pairs = [(unit, phone) for unit, phone in zip(*drawn, strict=True) if phone]
    found = phone_statistics(*drawn)
    for name, own, other in (("phone_purity", 0, 1), ("cluster_purity", 1, 0)):
        right = 0
        for value in {pair[own] for pair in pairs}:
            mates = Counter(p[other] for p in pairs if p[own] == value)
            right += max(mates.values())
        assert found[name] == pytest.approx(right / len(pairs))
    commonest = Counter(phone for _, phone in pairs).most_common(1)[0][1]
    assert found["commonest_phone"] == pytest.approx(commonest / len(pairs))
    assert found["frames"] == len(pairs)
    assert found["phones"] == 5
    assert found["units"] == len({unit for unit, _ in pairs})


def test_units_that_are_phones_know_everything() -> None:
    phones = np.array(["a", "b", "a", "c", ""])
    found = phone_statistics(np.array([7, 1, 7, 900, 3]), phones)
    assert found["pnmi"] == pytest.approx(1.0)
    assert found["phone_purity"] == found["cluster_purity"] == 1.0
    # One phone only: nothing is left to tell.
    assert phone_statistics(np.arange(3), np.array(["a"] * 3))["pnmi"] == 0.0


def test_frames_that_cannot_be_compared() -> None:
    with pytest.raises(DataError, match="3 units cannot have 2 phones"):
        phone_statistics(np.arange(3), np.array(["a", "b"]))
    with pytest.raises(DataError, match="silence"):
        phone_statistics(np.arange(2), np.array(["", ""]))


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the manifest of a small pack of synthetic clips."""
    folder = tmp_path_factory.mktemp("pack")
    texts = sentences("sw", 1)
    clips, extra = [], []
    for number in range(12):
        samples, phones = synthesize_phones(next(texts), "sw", seed=number)
        soundfile.write(folder / f"{number}.wav", samples, 16000)
        names = [name.lstrip("',") for name, _ in phones]
        said = " ".join(n for n in names if n and not n.startswith("_"))
        clips.append([f"c{number}", f"{number}.wav", "s", "x"])
        extra.append([f"c{number}", said])
    soundfile.write(folder / "short.wav", np.ones(300), 16000)
    clips.append(["short", "short.wav", "s", "x"])
    extra.append(["short", "a"])
    for name, columns, rows in (
        ("train.csv", ["ID", "wav", "speaker", "text"], clips[4:]),
        ("dev.csv", ["ID", "wav", "speaker", "text"], clips[:4]),
        ("extra.csv", ["ID", "phones"], extra),
    ):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([columns, *rows])
    return folder


def same(one: list[AlignedClip], other: list[AlignedClip]) -> bool:
    return len(one) == len(other) and all(
        a[:2] == b[:2] and a.phones.tolist() == b.phones.tolist()
        for a, b in zip(one, other, strict=True)
    )


def test_a_pack_is_aligned_once(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = tmp_path / "phones.json"
    manifests = [pack / "dev.csv", pack / "train.csv"]
    first = align_pack(manifests, memory, settings=QUICK)
    assert [clip.id for clip in first] == [f"c{n}" for n in range(12)]
    assert [path.name for path in tmp_path.iterdir()] == ["phones.json"]
    for clip in first:
        samples = soundfile.info(clip.wav).frames
        assert len(clip.phones) == SPECTRA.frames(samples)
    monkeypatch.setattr(
        "s3router.brains.pretrain_alignment.align_phones", lambda *_: 1 / 0
    )
    assert same(first, align_pack(manifests, memory, settings=QUICK))
    # Other settings, another draw, other manifests: not these labels.
    for other in (
        (manifests, memory, None, 0, None),
        (manifests, memory, 3, 0, QUICK),
        (manifests[:1], memory, None, 0, QUICK),
    ):
        with pytest.raises(ZeroDivisionError):
            align_pack(*other)


def test_a_failure_leaves_no_labels(
    pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("s3router.brains.pretrain_alignment.align_phones", fail)
    with pytest.raises(KeyboardInterrupt):
        align_pack([pack / "dev.csv"], tmp_path / "phones.json")
    assert not list(tmp_path.iterdir())


def test_a_limit_is_for_each_manifest(pack: Path, tmp_path: Path) -> None:
    manifests = [pack / "dev.csv", pack / "train.csv"]
    found = align_pack(manifests, tmp_path / "a.json", 3, settings=QUICK)
    names = [int(clip.id[1:]) for clip in found]
    assert sum(name < 4 for name in names) == 3
    assert len(names) - 3 in (2, 3)  # the short one may be among them


def test_a_clip_stands_in_one_manifest(pack: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="'c0' stands in two manifests"):
        align_pack([pack / "dev.csv"] * 2, tmp_path / "a.json")


@pytest.mark.parametrize("change", ["clips", "key", "runs"])
def test_a_damaged_memory(pack: Path, tmp_path: Path, change: str) -> None:
    memory = tmp_path / "phones.json"
    align_pack([pack / "dev.csv"], memory, settings=QUICK)
    written = json.loads(memory.read_text(encoding="utf-8"))
    if change == "runs":
        written["clips"]["c0"] = [["a"]]
    else:
        del written[change]
    memory.write_text(json.dumps(written), encoding="utf-8")
    with pytest.raises(FormatError, match="remove it and run again"):
        align_pack([pack / "dev.csv"], memory, settings=QUICK)


def statistics_of(
    assign: Callable[[np.ndarray], np.ndarray],
    clips: list[AlignedClip],
    grid: FrameGrid,
) -> dict:
    """Return the statistics of units that are assigned clip by clip."""
    kept, phones = clip_frames([assign], clips, grid)
    return phone_statistics(
        np.concatenate([u for (u,) in kept.values()]), phones
    )


def own_phones(
    clips: list[AlignedClip], grid: FrameGrid
) -> Callable[[np.ndarray], np.ndarray]:
    """Return units that are the aligned phones themselves, in turn."""
    names = sorted({p for clip in clips for p in clip.phones})
    left = iter(clips)

    def assign(samples: np.ndarray) -> np.ndarray:
        assert samples.dtype == np.float32
        assert abs(samples.mean()) < 0.05 and 0.8 < samples.std() < 1.2
        phones = next(left).on(grid, grid.frames(len(samples)))
        return np.searchsorted(names, phones)

    return assign


@pytest.mark.parametrize("grid", [SPECTRA, SLOW])
def test_units_are_measured_on_the_encoders_frames(
    pack: Path, tmp_path: Path, grid: FrameGrid
) -> None:
    clips = align_pack([pack / "dev.csv"], tmp_path / "a.json", settings=QUICK)
    known = statistics_of(own_phones(clips, grid), clips, grid)
    assert known["pnmi"] == pytest.approx(1.0)
    blind = statistics_of(
        lambda samples: np.zeros(grid.frames(len(samples)), int), clips, grid
    )
    assert blind["pnmi"] == 0.0
    assert blind["phone_purity"] == blind["commonest_phone"]
    spoken = sum(
        (clip.on(grid, grid.frames(length // 1600 * 1600)) != "").sum()
        for clip in clips
        for length in [soundfile.info(clip.wav).frames]
    )
    assert known["frames"] == blind["frames"] == spoken


def test_units_of_another_grid(pack: Path, tmp_path: Path) -> None:
    clips = align_pack([pack / "dev.csv"], tmp_path / "a.json", settings=QUICK)
    with pytest.raises(MismatchError, match="clip c0 has"):
        statistics_of(lambda samples: np.zeros(3), clips, SLOW)


def test_clips_that_are_all_too_short(pack: Path) -> None:
    clip = AlignedClip("short", str(pack / "short.wav"), np.array(["a"]))
    with pytest.raises(DataError, match="none of 1 aligned clips"):
        statistics_of(lambda samples: samples, [clip], SLOW)
