"""Missing bytes at the end of WAV and Ogg files are found from the bytes."""

import struct

import numpy as np
import pytest
import soundfile

from s3router.data.container import missing_bytes


def wav(size=200, data=bytes(200), before=b""):
    fmt = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, 1, 8000, 16000, 2, 16)
    body = b"WAVE" + fmt + before + struct.pack("<4sI", b"data", size) + data
    return struct.pack("<4sI", b"RIFF", len(body)) + body


def page(segments, flags=0):
    return (
        b"OggS"
        + bytes([0, flags])
        + bytes(20)
        + bytes([len(segments)])
        + bytes(segments)
        + bytes(sum(segments))
    )


odd_chunk = b"LIST" + struct.pack("<I", 3) + b"abc\0"

CASES = {
    "whole wav": (wav(), 0),
    "cut wav": (wav(data=bytes(150)), 50),
    "wav with more after the samples": (wav(data=bytes(300)), 0),
    "cut wav, odd chunk before": (wav(data=bytes(9), before=odd_chunk), 191),
    "streamed wav": (wav(size=0xFFFFFFFF), 0),
    "streamed wav of sox": (wav(size=0x7FFFF000), 0),
    "wav without samples": (wav()[:30], 0),
    "whole ogg": (page([255, 10]) + page([40]), 0),
    "ogg cut in a body": ((page([255, 10]) + page([40]))[:-7], 7),
    "ogg cut in a header": (page([255, 10]) + page([40])[:20], 7),
    "ogg cut in a segment table": (page([3]) + page([9, 9, 9])[:28], 11),
    "long page": (page([255] * 255) + page([255] * 255), 0),
    "long page cut": ((page([255] * 255) + page([255] * 255))[:-1], 1),
    "something else": (b"ID3" + bytes(99), 0),
    "nothing": (b"", 0),
}


@pytest.mark.parametrize("name", CASES)
def test_missing_bytes(tmp_path, name):
    content, expected = CASES[name]
    path = tmp_path / "file"
    path.write_bytes(content)
    assert missing_bytes(path) == expected


@pytest.mark.parametrize("subtype", ["OPUS", "VORBIS"])
def test_every_cut_inside_a_real_last_page_is_found(tmp_path, subtype):
    path = tmp_path / "a.ogg"
    noise = np.random.default_rng(0).standard_normal(16000) * 0.1
    soundfile.write(path, noise, 16000, format="OGG", subtype=subtype)
    data = path.read_bytes()
    assert missing_bytes(path) == 0
    last = data.rindex(b"OggS")
    for end in [
        last + 4,
        last + 26,
        last + 27,
        *range(last + 30, len(data), 97),
    ]:
        path.write_bytes(data[:end])
        assert missing_bytes(path) > 0


def test_real_clips_are_whole(shared_data):
    clips = sorted((shared_data / "zh_dsp20" / "audio").glob("*.ogg"))[:50]
    assert len(clips) == 50
    assert all(missing_bytes(clip) == 0 for clip in clips)
