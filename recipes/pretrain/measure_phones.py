#!/usr/bin/env python3
"""Measures what units of an encoder tell about the phones that people spoke.

Any encoder: a folder, "tiny", a hub name. Prints JSON: PNMI and purities of
k-means units of a layer, and of MFCCs.

To run, from the repository's root:
> python recipes/pretrain/measure_phones.py s3router/assets/tiny \
    --data_folder=/path/to/packs --memory_folder=results/phones
"""

import argparse
import sys
import tempfile
from pathlib import Path

from ruamel.yaml import YAML

from s3router.brains.hparams import flatten_hparams
from s3router.brains.pretrain_human_phones import (
    UNITS,
    measure_phones,
    present,
)
from s3router.errors import NotFoundError, exit_on_error
from s3router.formats.files import to_json, write_json
from s3router.models.encoder import load_encoder

SETTINGS = Path(__file__).parents[2] / "hparams" / "pretrain_tiny.yaml"


@exit_on_error
def main(arguments: list[str]) -> None:
    """Align phones where that is not done yet, and measure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("encoder", help="tiny, a folder, or a hub name")
    parser.add_argument("--data_folder", required=True)
    parser.add_argument(
        "--settings", default=SETTINGS, help="YAML with phone_labels"
    )
    parser.add_argument(
        "--memory_folder", help="keeps aligned phones, for the next encoder"
    )
    parser.add_argument("--units", type=int, default=UNITS)
    parser.add_argument("--layer", type=int, help="default: the last")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", help="also write the JSON here")
    options = parser.parse_args(arguments)
    settings = YAML().load(flatten_hparams(options.settings))
    entries = present(settings["phone_labels"], options.data_folder)
    if not entries:
        raise NotFoundError(
            f"no files of phone_labels ({options.settings}) are under "
            f"{options.data_folder}"
        )
    encoder = load_encoder(options.encoder).to(options.device)
    with tempfile.TemporaryDirectory() as temporary:
        found = measure_phones(
            encoder,
            entries,
            options.data_folder,
            options.memory_folder or temporary,
            options.units,
            options.layer,
            options.seed,
        )
    found = {"encoder": options.encoder, **found}
    if options.output:
        write_json(options.output, found)
    sys.stdout.write(to_json(found))


if __name__ == "__main__":
    main(sys.argv[1:])
