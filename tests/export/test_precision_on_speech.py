"""The embedded encoder on real speech: what fewer bits do to its texts."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from s3router.export.bundle import make_bundle
from s3router.export.transcripts import read_transcripts
from s3router.formats.subnetwork import Subnetwork
from s3router.masks.apply import apply_masks
from s3router.models.encoder import load_encoder
from s3router.models.heads import CTCHead
from s3router.runtime.audio import normalize
from s3router.runtime.recognizer import Recognizer

pytestmark = pytest.mark.slow
SPARSITY = 0.2


def rows_of(pack: Path, name: str, count: int, folder: Path) -> Path:
    """Return a CSV of some clips of a pack, spread over it."""
    with (pack / name).open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if r["language"] == "zh"]
    rows = rows[:: len(rows) // count][:count]
    path = folder / name
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0])
        writer.writeheader()
        for row in rows:
            writer.writerow({**row, "wav": pack / row["wav"]})
    return path


@pytest.fixture(scope="module")
def spoken(shared_data, tmp_path_factory) -> tuple[Path, Path]:
    """Return a subnetwork that reads Chinese numbers, and a CSV of others.

    The smallest weights are masked; only the head is trained.
    """
    root = tmp_path_factory.mktemp("speech")
    pack = shared_data / "zh_dsp20"
    clips = read_transcripts([rows_of(pack, "train.csv", 200, root)], ["zh"])
    clips = clips["zh"]
    tokens = ["<blk>", "<unk>", *sorted({c for one in clips for c in one.text})]
    encoder, masks = load_encoder("tiny"), {}
    fingerprint = encoder.fingerprint()
    for name, weight in encoder.maskable_weights().items():
        size = np.abs(weight)
        masks[name] = size > np.quantile(size, SPARSITY)
    apply_masks(encoder.model, masks)
    with torch.no_grad():
        hidden = [
            encoder.forward_unpadded(
                torch.from_numpy(
                    normalize(one.samples)
                    if encoder.normalize_input
                    else one.samples
                )[None]
            )[0]
            for one in clips
        ]
    ids = [torch.tensor([tokens.index(c) for c in one.text]) for one in clips]
    torch.manual_seed(0)
    head = CTCHead(encoder.hidden_size, len(tokens))
    padded = torch.nn.utils.rnn.pad_sequence(hidden)
    frames = torch.tensor([len(one) for one in hidden])
    lengths = torch.tensor([len(one) for one in ids])
    optimizer = torch.optim.Adam(head.parameters(), 1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        logs = head(padded).log_softmax(-1)
        functional.ctc_loss(logs, torch.cat(ids), frames, lengths).backward()
        optimizer.step()
    config = {
        "method": "magnitude",
        "language": "zh-CN",
        "task": "ctc",
        "encoder": "tiny",
        "fingerprint": fingerprint,
        "sample_rate": 16000,
        "normalize": encoder.normalize_input,
        "unit": "char",
        "spaceless": True,
        "targets": "all",
    }
    subnetwork = Subnetwork(config, masks, head.to_numpy(), tokens)
    path = subnetwork.save(root / "subnetwork")
    return path, rows_of(pack, "test.csv", 40, root)


@pytest.mark.parametrize(
    ("precision", "layout"), [("fp16", "standalone"), ("int8", "shared")]
)
def test_texts_stay_what_they_are(spoken, tmp_path, precision, layout):
    subnetwork, transcripts = spoken
    lines: list[str] = []
    report = make_bundle(
        [subnetwork],
        tmp_path / "bundle",
        layout=layout,
        precision=precision,
        transcripts=[transcripts],
        log=lines.append,
    )
    language = report["languages"]["zh-CN"]
    change, numbers = language["change"], language["parity"]
    assert change["transcripts"] == change["clips"] == 40
    assert 0 < change["cer_fp32"] < 0.95, "the head has learnt nothing"
    assert numbers["max_error"] < 1e-4 + 2 * numbers["noise"]
    assert change["text_distance"] < 0.1
    least, most = {"fp16": (0, 1e-3), "int8": (1e-3, 0.03)}[precision]
    assert least < change["relative_logit"] < most
    rises = change["cer"] > change["cer_fp32"] * 1.05
    assert rises == any(line.startswith("warning: zh-CN") for line in lines)
    # The same texts once more, through the public door, counted plainly.
    recognizer = Recognizer(tmp_path / "bundle", "zh", "cpu")
    clips = read_transcripts([transcripts], ["zh"])["zh"]
    read = [recognizer.transcribe(one.samples).text for one in clips]
    wrong = sum(a != one.text for a, one in zip(read, clips, strict=True))
    assert (wrong == 0) == (change["cer"] == 0)
    assert len({*read}) > 3
