"""What is installed, and what is not: from a wheel built here."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from repository_files import ROOT, name_of, package_files, repository_files


@pytest.fixture(scope="session")
def wheel(tmp_path_factory) -> Path:
    """Build the wheel from a copy, without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    for path in repository_files(""):
        copy = source / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--no-deps",
            "--no-build-isolation",
            "--no-index",
            f"--wheel-dir={folder}",
            str(source),
        ],
        capture_output=True,
        text=True,
        check=False,
        # An editable install on the path must not stand in for the copy.
        env={**os.environ, "PYTHONPATH": ""},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="session")
def names(wheel) -> set[str]:
    """Return the names of the files in the wheel."""
    return set(zipfile.ZipFile(wheel).namelist())


@pytest.fixture(scope="session")
def requirements(wheel) -> list[str]:
    """Return the wheel's requirements, as its metadata gives them."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [
            n for n in archive.namelist() if n.endswith(".dist-info/METADATA")
        ]
        text = archive.read(name).decode("utf-8")
    return re.findall(r"^Requires-Dist: (.*)$", text, re.M)


def of_extra(requirements, extra):
    """Return the package names of an extra; None is the base install."""
    chosen = []
    for line in requirements:
        package, _, marker = line.partition(";")
        found = re.search(r"extra == ['\"]([\w-]+)['\"]", marker)
        if (found[1] if found else None) == extra:
            chosen.append(re.match(r"[\w.-]+", package)[0].lower())
    return chosen


def test_only_one_name_lands_in_site_packages(names):
    tops = {name.split("/")[0] for name in names}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert tops - metadata == {"s3router"}
    assert len(metadata) == 1


def test_all_modules_are_in_the_wheel(names):
    modules = {name_of(path) for path in package_files()}
    assert modules <= names, f"left out: {sorted(modules - names)[:5]}"


def test_all_assets_are_in_the_wheel(names):
    assets = {
        name_of(path)
        for path in repository_files("")
        if path.is_relative_to(ROOT / "s3router" / "assets")
    }
    assert assets <= names, f"left out: {sorted(assets - names)[:5]}"


def test_the_licence_is_in_the_wheel(names):
    assert any(name.endswith("/LICENSE") for name in names)
    assert any(name.endswith("/NOTICE") for name in names)
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "END OF TERMS" in text


def test_the_command_is_installed(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [
            n for n in archive.namelist() if n.endswith("entry_points.txt")
        ]
        assert b"s3router = s3router.cli:main" in archive.read(name)


def test_the_base_install_is_small(requirements):
    assert set(of_extra(requirements, None)) == {
        "numpy",
        "safetensors",
        "soundfile",
    }


def test_nothing_gpl_but_in_its_own_extra(requirements):
    gpl = {"espeakng-loader", "phonemizer", "py-espeak-ng", "piper-tts"}
    for extra in (None, "train", "runtime", "dev"):
        assert not gpl & set(of_extra(requirements, extra)), extra
    assert "espeakng-loader" in of_extra(requirements, "synthetic")


def test_never_two_onnxruntimes(requirements):
    everything = {re.match(r"[\w.-]+", line)[0] for line in requirements}
    assert "onnxruntime-gpu" in everything
    assert "onnxruntime" not in everything
    device = of_extra(requirements, "runtime")
    assert not [name for name in device if name.startswith("onnxruntime")]
    assert "torch" not in device


def test_torch_and_torchaudio_are_pinned_together(requirements):
    pins = [
        line.split(";")[0].strip()
        for line in requirements
        if re.match(r"torch(audio)?\b", line)
    ]
    assert pins == ["torch==2.11.*", "torchaudio==2.11.0"]


def test_ruff_is_pinned_exactly(requirements):
    (ruff,) = [line for line in requirements if line.startswith("ruff")]
    assert re.match(r"ruff==[\d.]+;", ruff.replace(" ", ""))


# Name on import to name on installation, where they differ.
DISTRIBUTION = {
    "sklearn": "scikit-learn",
    "espeakng_loader": "espeakng-loader",
    "sherpa_onnx": "sherpa-onnx",
    "onnxruntime": "onnxruntime-gpu",
    # These come with what needs them.
    "onnx_ir": "onnxscript",
    "ruamel": "hyperpyyaml",
    "yaml": "hyperpyyaml",
    "huggingface_hub": "transformers",
    "scipy": "scikit-learn",
}


def test_whatever_is_imported_is_required(requirements):
    required = {re.match(r"[\w.-]+", line)[0].lower() for line in requirements}
    missing = set()
    sources = package_files() + [
        path
        for path in repository_files(".py")
        if path.relative_to(ROOT).parts[0] in {"recipes", "export"}
    ]
    local = {path.stem for path in sources} | {"s3router"}
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                tops = {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                tops = {(node.module or "").split(".")[0]}
            else:
                continue
            for top in tops - local - set(sys.stdlib_module_names):
                if DISTRIBUTION.get(top, top).lower() not in required:
                    missing.add(f"{name_of(path)} imports {top}")
    assert not missing, "\n".join(sorted(missing))


def test_the_version_is_the_packages(wheel):
    import s3router

    assert wheel.name.startswith(f"s3router-{s3router.__version__}-")
    try:
        installed = importlib.metadata.version("s3router")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("run from a plain checkout: nothing is installed")
    assert installed == s3router.__version__
