"""What a mode holds in memory of its own: measured, in a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from toy_shared import make_shared_bundle

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/smaps_rollup").exists(),
    reason="only Linux tells what memory is anonymous",
)
WIDTH = 2600
WEIGHTS = 4 * WIDTH * WIDTH

CODE = """
import json, sys
from pathlib import Path
from s3router.runtime.recognizer import Recognizer

def anonymous():
    rollup = Path("/proc/self/smaps_rollup").read_text()
    rows = [line.split() for line in rollup.splitlines()]
    sizes = {row[0]: row[1] for row in rows[1:]}
    return 1024 * int(sizes["Anonymous:"])

small, folder, mode = sys.argv[1:]
# What onnxruntime itself needs is not counted.
kept = [Recognizer(small, "aa", "cpu", 1, mode=mode)]
measured = [anonymous()]
kept.append(Recognizer(folder, "aa", "cpu", 1, mode=mode))
measured.append(anonymous())
if mode == "switch":
    kept[-1].switch("bb")
else:
    kept.append(Recognizer(folder, "bb", "cpu", 1, mode=mode))
measured.append(anonymous())
print(json.dumps(measured))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Return a bundle of next to nothing, and one of 27 MB of weights."""
    root = tmp_path_factory.mktemp("memory")
    make_shared_bundle(root / "small", {"aa": 9, "bb": 9})
    make_shared_bundle(root / "large", {"aa": 9, "bb": 9}, WIDTH)
    return root / "small", root / "large"


@pytest.mark.parametrize(
    ("mode", "first", "second"),
    # Copies of the weights for one language, and for one more.
    [("fold", 1, 1), ("lean", 0, 0), ("switch", 1, 0)],
)
def test_copies_of_the_weights(folders, mode, first, second):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, folders), mode],
        capture_output=True,
        text=True,
        check=True,
    )
    before, one, two = json.loads(done.stdout)
    # The bits are a 32nd part of the weights; graphs hold them as well.
    assert one - before == pytest.approx(first * WEIGHTS, abs=WEIGHTS / 5)
    assert two - one == pytest.approx(second * WEIGHTS, abs=WEIGHTS / 5)
