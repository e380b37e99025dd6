"""Make a bundle for onnxruntime from subnetwork folders.

    python export/make_bundle.py SUBNETWORK... --output BUNDLE [--encoder SRC]

The same as `s3router export`, which an installed package has.
"""

import sys

from s3router.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))
