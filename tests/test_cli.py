"""The console command: what it prints, on which stream, and its exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3router.cli import main

sys.path[:0] = [str(Path(__file__).parent / p) for p in ("runtime", "export")]
from toy_bundles import TOKENS, make_toy_bundle, speak  # noqa: E402
from toy_shared import make_shared_bundle  # noqa: E402

SAID = [3, 0, 3, 2, 4, 5]
TEXT = "aa bc"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    """Return a toy bundle of zh-CN and es."""
    return make_toy_bundle(tmp_path / "bundle", {"zh-CN": TOKENS, "es": TOKENS})


@pytest.fixture
def wav(tmp_path: Path) -> Path:
    """Return a file that the toy hears as TEXT."""
    soundfile.write(tmp_path / "a b.wav", speak(SAID), 16000)
    return tmp_path / "a b.wav"


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "s3router.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
    )


def test_transcribe(bundle: Path, wav: Path, capsys):
    code = main(["transcribe", str(bundle), "-l", "zh", str(wav), str(wav)])
    out, err = capsys.readouterr()
    assert code == 0
    assert out == f"{wav}\t{TEXT}\n" * 2
    assert "2 of 2 files" in err
    assert "zh-CN" in err
    assert "ExecutionProvider" in err


@pytest.mark.parametrize("mode", ["lean", "switch"])
def test_transcribe_modes(tmp_path: Path, wav: Path, mode: str, capsys):
    make_shared_bundle(tmp_path / "shared", {"aa": 9, "bb": 9})
    command = ["transcribe", str(tmp_path / "shared"), "-q", "-l", "bb"]
    assert main([*command, str(wav)]) == 0
    expected = capsys.readouterr().out
    assert main([*command, "--mode", mode, str(wav)]) == 0
    assert capsys.readouterr() == (expected, "")
    plain = str(make_toy_bundle(tmp_path / "plain"))
    assert main(["transcribe", plain, "--mode", mode, str(wav)]) == 2
    err = capsys.readouterr().err
    assert f"mode {mode}" in err and "layout shared" in err
    assert err.count("\n") == 1


def test_transcribe_json(bundle: Path, wav: Path, capsys):
    code = main(
        ["transcribe", str(bundle), "--language=es", "--json", "-q", str(wav)]
    )
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    entry = json.loads(out)
    assert entry["path"] == str(wav)
    assert entry["text"] == TEXT
    assert entry["language"] == "es"
    assert entry["provider"].endswith("ExecutionProvider")
    assert entry["duration"] == pytest.approx(0.6)
    assert entry["real_time_factor"] > 0


def test_one_language_needs_no_name(tmp_path: Path, wav: Path, capsys):
    folder = make_toy_bundle(tmp_path / "one")
    assert main(["transcribe", str(folder), str(wav)]) == 0
    assert capsys.readouterr().out == f"{wav}\t{TEXT}\n"


def test_bad_files_do_not_stop_the_others(
    bundle: Path, wav: Path, tmp_path: Path, capsys
):
    (tmp_path / "empty.wav").touch()
    (tmp_path / "text.flac").write_text("no audio at all")
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000)
    bad = ["missing.wav", "empty.wav", "text.flac", "short.wav"]
    files = [str(tmp_path / name) for name in bad]
    code = main(["transcribe", str(bundle), "-l", "es", *files, str(wav)])
    out, err = capsys.readouterr()
    assert code == 1
    assert out == f"{wav}\t{TEXT}\n"
    errors = [line for line in err.splitlines() if "error" in line]
    assert len(errors) == len(files)
    for line, file in zip(errors, files, strict=True):
        assert line.startswith("s3router: error: ")
        assert file in line
    assert "1 of 5 files" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-l", "fr"], "unknown language 'fr': there are: zh-CN, es"),
        ([], "say which language"),
        (["-l", "es", "--providers", "gpu"], "unknown provider 'gpu'"),
        (["-l", "es", "--threads", "0"], "threads must be at least 1"),
        (["-l", "es", "--chunk-seconds", "0.5"], "too short"),
    ],
)
def test_bad_settings(bundle: Path, wav: Path, capsys, arguments, words: str):
    code = main(["transcribe", str(bundle), str(wav), *arguments])
    out, err = capsys.readouterr()
    assert out == ""
    assert code in (1, 2)
    assert err.splitlines()[0].startswith("s3router: error: ")
    assert words in err


def test_damaged_bundle(bundle: Path, wav: Path, capsys):
    path = bundle / "es" / "model.onnx"
    path.write_bytes(path.read_bytes()[:-3])
    assert main(["transcribe", str(bundle), "-l", "es", str(wav)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "model.onnx is truncated" in err


def test_no_bundle(tmp_path: Path, wav: Path, capsys):
    assert main(["transcribe", str(tmp_path), str(wav)]) == 2
    assert "is not a bundle" in capsys.readouterr().err


def test_a_file_that_may_not_be_read(bundle: Path, wav: Path, capsys):
    name = "x" * 300 + ".wav"  # longer than file systems allow
    code = main(["transcribe", str(bundle), "-l", "es", name, str(wav)])
    out, err = capsys.readouterr()
    assert (code, out) == (1, f"{wav}\t{TEXT}\n")
    assert err.startswith("s3router: error: ")


def test_an_output_that_cannot_be_written(bundle: Path, capsys, monkeypatch):
    def refuse(*_: object):
        raise PermissionError(13, "Permission denied", str(bundle))

    monkeypatch.setattr("s3router.formats.describe.describe", refuse)
    assert main(["info", str(bundle)]) == 2
    err = capsys.readouterr().err
    assert "Permission denied" in err
    assert err.count("\n") == 1


def test_names_that_are_no_text(bundle: Path, wav: Path, tmp_path: Path):
    odd = os.fsencode(tmp_path) + b"/\xff.wav"
    try:
        os.rename(wav, odd)
    except OSError:
        pytest.skip("this file system wants valid names")
    done = subprocess.run(
        [
            *(sys.executable, "-m", "s3router.cli", "transcribe"),
            *(bundle, "-l", "es", "-q", odd),
        ],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.endswith(f"\t{TEXT}\n".encode())


def test_interrupted(bundle: Path, wav: Path, capsys, monkeypatch):
    from s3router.runtime.recognizer import Recognizer

    def interrupt(*_: object):
        raise KeyboardInterrupt

    monkeypatch.setattr(Recognizer, "transcribe", interrupt)
    assert main(["transcribe", str(bundle), "-l", "es", str(wav)]) == 130
    assert "Traceback" not in capsys.readouterr().err


def test_a_reader_that_stops(bundle: Path, wav: Path):
    """As in `s3router transcribe ... | head -1`."""
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "s3router.cli", "transcribe"),
            *(bundle, "-l", "es", "-q", *([wav] * 400)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == f"{wav}\t{TEXT}\n"
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 141


def test_info_of_a_bundle(bundle: Path, capsys):
    assert main(["info", str(bundle)]) == 0
    text = capsys.readouterr().out
    assert "bundle" in text
    assert "zh-CN" in text
    assert "sha256:00" in text
    assert main(["info", str(bundle), "--json"]) == 0
    info = json.loads(capsys.readouterr().out)
    assert info["kind"] == "bundle"
    assert list(info["languages"]) == ["zh-CN", "es"]


def test_info_of_nothing(tmp_path: Path, capsys):
    assert main(["info", str(tmp_path)]) == 2
    assert "nothing that s3router knows" in capsys.readouterr().err


def test_help_and_version(capsys):
    for arguments in ([], ["frobnicate"]):
        with pytest.raises(SystemExit) as stop:
            main(arguments)
        assert stop.value.code == 2
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("s3router 0.")


def test_transcribe_in_its_own_process(bundle: Path, wav: Path):
    done = run("transcribe", bundle, "--language", "zh", wav)
    assert (done.returncode, done.stdout) == (0, f"{wav}\t{TEXT}\n")
    failed = run("transcribe", bundle, "--language", "zh", "nothing.wav")
    assert failed.returncode == 1
    assert failed.stdout == ""
    assert "no such audio file: nothing.wav" in failed.stderr


WITHOUT = """
import sys
sys.modules["torch"] = sys.modules["transformers"] = None
from s3router.cli import main
code = main(sys.argv[1:])
heavy = {"onnx", "speechbrain", "scipy", "torchaudio"} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""


@pytest.mark.parametrize("command", ["transcribe", "info"])
def test_a_device_needs_no_torch(bundle: Path, wav: Path, command: str):
    arguments = {"transcribe": ["-l", "es", wav], "info": []}[command]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, command, bundle, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_help_imports_next_to_nothing():
    code = "import sys, s3router.cli; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "s3router.cli" in loaded
    assert not loaded & {"numpy", "torch", "onnxruntime", "soundfile"}


def test_quickstart_is_called(monkeypatch):
    import types

    called = []
    fake = types.ModuleType("s3router.quickstart.main")
    fake.quickstart = lambda folder, clean: called.append((folder, clean))
    monkeypatch.setitem(sys.modules, fake.__name__, fake)
    assert main(["quickstart"]) == 0
    assert main(["quickstart", "--folder", "x", "--clean"]) == 0
    assert called == [("quickstart", False), ("x", True)]


@pytest.mark.slow
def test_export_transcribe_info_and_check(tmp_path: Path, wav: Path, capsys):
    """The whole way on a random encoder, and the commands of export/."""
    pytest.importorskip("transformers")
    from subnetworks import make_encoder, make_subnetwork

    encoder = make_encoder(tmp_path / "enc", "wav2vec2-base")
    folder = make_subnetwork(tmp_path / "zh", encoder, "zh-CN")
    output = tmp_path / "out"
    arguments = ["export", folder, "--output", output, "--audio", wav]
    capsys.readouterr()
    assert main([*map(str, arguments), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    parity = report["languages"]["zh-CN"]["parity"]
    assert parity["lengths"][-1] == 9600
    assert main(["transcribe", str(output), "--language", "zh", str(wav)]) == 0
    line = capsys.readouterr().out
    assert main(["info", str(output), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["fingerprint"].startswith("sha")

    def script(name: str, *rest: object) -> subprocess.CompletedProcess:
        path = Path(__file__).parents[1] / "export" / name
        return subprocess.run(
            [sys.executable, path, *map(str, rest)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": str(path.parents[1])},
        )

    done = script("transcribe.py", output, "-q", wav)
    assert (done.returncode, done.stdout, done.stderr) == (0, line, "")
    done = script("check_parity.py", output)
    assert done.returncode == 0, done.stderr
    assert "zh-CN: ok" in done.stdout
    done = script("make_bundle.py", "--help")
    assert done.returncode == 0
    assert "--output BUNDLE" in done.stdout
