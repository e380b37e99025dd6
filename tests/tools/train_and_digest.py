"""Run the recipe and write a digest of this rank's masks before and after.

Usage: train_and_digest.py FOLDER hparams.yaml [options]
"""

import hashlib
import os
import runpy
import sys
from pathlib import Path

from s3router.methods.mask_tuning import MaskTuning

ROOT = Path(__file__).resolve().parents[2]


def digest(method: MaskTuning) -> str:
    """Return a hash over all masks in order of their names."""
    total = hashlib.sha256()
    for name, mask in sorted(method.masks().items()):
        total.update(name.encode() + mask.cpu().numpy().tobytes())
    return total.hexdigest()


def main(folder: Path) -> None:
    """Note the masks behind `prepare` and behind every step."""
    digests = []
    prepare, after_step = MaskTuning.prepare, MaskTuning.after_step

    def noted_prepare(self, encoder):
        prepare(self, encoder)
        digests.append(digest(self))

    def noted_step(self, step):
        numbers = after_step(self, step)
        digests[1:] = [digest(self)]
        return numbers

    MaskTuning.prepare, MaskTuning.after_step = noted_prepare, noted_step
    script = ROOT / "recipes" / "commonvoice" / "train.py"
    sys.path.insert(0, str(script.parent))
    sys.argv = [str(script), *sys.argv[2:]]
    runpy.run_path(str(script), run_name="__main__")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / os.environ["RANK"]).write_text(" ".join(digests))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
