"""What pip needs to know: the one place of the package's metadata.

Extras: `train` (all of training and export), `runtime` (a device: add
onnxruntime or onnxruntime-gpu, never both), `synthetic` (synthetic speech;
brings a GPL-3 library), `lora` (LoRA and IA3), `cluster` (`s3router compare` on
other machines), `dev` (tests and lint).
"""

import ast
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent


def version() -> str:
    """Return `__version__`, without importing the package."""
    text = (ROOT / "s3router/__init__.py").read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "__version__":
            return ast.literal_eval(node.value)
    raise RuntimeError("s3router/__init__.py has no __version__")


BASE = ["numpy>=1.26", "safetensors>=0.5", "soundfile>=0.12.1"]

# torchaudio 2.11.0 is the last one that torch 2.11 can load (2.11.1 wants
# symbols of a later torch), and its published wheel needs the CUDA build of
# torch, which runs on a CPU too. onnxruntime and onnxruntime-gpu share one
# folder and break each other: only the second is named here.
TRAIN = [
    "torch==2.11.*",
    "torchaudio==2.11.0",
    "speechbrain>=1.1.2,<1.2",
    "hyperpyyaml>=1.2.3",
    "transformers>=5.23,<6",
    "onnx>=1.20",
    "onnxscript>=0.7",
    "onnxruntime-gpu>=1.31",
    "sentencepiece>=0.2.1",
    "jiwer>=4.0",
    "kaldialign>=0.12",
    "tensorboard>=2.20",
    "scikit-learn>=1.7",
    "scipy>=1.14",
    "matplotlib>=3.10",
    "tqdm>=4.67",
    "zstandard>=0.23",
]

EXTRAS = {
    "train": TRAIN,
    "runtime": ["numpy>=1.26", "soundfile>=0.12.1", "zstandard>=0.23"],
    # GPL-3: never in another extra.
    "synthetic": ["espeakng-loader>=0.2.4", "babel>=2.17"],
    "lora": ["peft>=0.21,<1"],
    "cluster": ["ray>=2.40", "submitit>=1.5"],
    "dev": [
        "pytest>=9",
        "pytest-xdist>=3.8",
        "ruff==0.17.5",
        "peft>=0.21,<1",
        # No build of it for newer Pythons yet.
        "ray>=2.40; python_version < '3.14'",
        "submitit>=1.5",
        "sherpa-onnx>=2.0.1",
        # The packaging test builds a wheel without a network.
        "setuptools>=77,<82",
    ],
}

setup(
    name="s3router",
    version=version(),
    description="Find, train, store and run per-language subnetworks of "
    "frozen self-supervised speech encoders",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The s3router authors",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    packages=find_packages(include=["s3router", "s3router.*"]),
    package_data={"s3router": ["assets/**/*"]},
    install_requires=BASE,
    extras_require=EXTRAS,
    entry_points={"console_scripts": ["s3router=s3router.cli:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Science/Research",
        "Programming Language :: Python :: 3",
        "Topic :: Multimedia :: Sound/Audio :: Speech",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
    zip_safe=False,
)
