"""Recognise speech with a bundle; needs no torch.

    python export/transcribe.py BUNDLE --language zh a.wav b.flac [--json]

The same as `s3router transcribe`, which an installed package has.
"""

import sys

from s3router.cli import main

if __name__ == "__main__":
    sys.exit(main(["transcribe", *sys.argv[1:]]))
