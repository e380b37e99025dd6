"""Verify a bundle again: onnxruntime against torch.

    python export/check_parity.py BUNDLE [--subnetworks S...] [--audio a.wav]

Repeats what `make_bundle.py` did before it wrote the bundle. Needs the
encoder and the subnetworks that the bundle was made from.
"""

import argparse
import json
import sys

from s3router.errors import S3RouterError
from s3router.export.parity import TOLERANCE
from s3router.export.verification import check_bundle
from s3router.runtime.audio import read_audio


def main() -> int:
    """Run the command; return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle")
    parser.add_argument(
        "--subnetworks",
        nargs="+",
        default=[],
        help="their folders, if they are not where they were",
    )
    parser.add_argument("--encoder", help="if it is not where it was")
    parser.add_argument(
        "--audio", nargs="+", default=[], help="real speech to check with"
    )
    parser.add_argument("--providers", default="cpu", help="cpu or cuda")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        report = check_bundle(
            arguments.bundle,
            arguments.subnetworks,
            arguments.encoder,
            [read_audio(path) for path in arguments.audio],
            arguments.providers,
            arguments.tolerance,
        )
    except S3RouterError as error:
        print(f"check_parity: error: {error}", file=sys.stderr)
        return error.exit_code
    if arguments.json:
        print(json.dumps(report, indent=2))
        return 0
    for code, numbers in report.items():
        print(
            f"{code}: ok, logits within {numbers['max_error']:.1e} of torch "
            f"({numbers['max_error_padded']:.1e} of its padded batches), "
            f"{numbers['texts']} texts equal, {numbers['zeros']} zeros in "
            f"{numbers['tensors']} masked tensors, on {numbers['provider']}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
