#!/usr/bin/env python3
"""Writes an encoder with the shape of another one and random weights.

The control of every comparison: what a method reaches without pre-training.

To run, from the repository's root:
> python recipes/pretrain/untrained.py s3router/assets/tiny untrained --seed=0
"""

import argparse
import shutil
import sys
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModel

from s3router.brains.pretrain_snapshots import write_record
from s3router.errors import exit_on_error
from s3router.formats.files import atomic_folder
from s3router.models.sources import locate


@exit_on_error
def main(arguments: list[str]) -> None:
    """Build the model anew from its configuration and save it."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
    )
    parser.add_argument("encoder", help="tiny, or a Hugging Face folder")
    parser.add_argument("output", help="folder to write")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    source = locate(options.encoder)
    torch.manual_seed(options.seed)
    config = AutoConfig.from_pretrained(source, local_files_only=True)
    model = AutoModel.from_config(config)
    with atomic_folder(options.output) as folder:
        model.save_pretrained(folder)
        name = "preprocessor_config.json"
        shutil.copy(source / name, Path(folder) / name)
        write_record(folder, hours=0.0)
    print(f"untrained encoder: {options.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
