"""What one process needs to try an encoder, and what it keeps on disk.

Each result is one JSON, named by a hash of all that it depends on and written
when it is done: what is there is never computed again.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from encoder_data import Task, clips_key, load_task
from encoder_features import Features, FeatureStore
from encoder_probes import VERSION as PROBE_VERSION
from encoder_probes import ProbeSizes, run_probe
from encoder_tuning import complete, run_trial

from s3router.brains.pretrain_snapshots import hours_heard
from s3router.evaluation.results import shorten_paths
from s3router.formats.files import read_json, write_json
from s3router.models.encoder import load_encoder
from s3router.models.encoder_key import encoder_key
from s3router.models.frame_grid import FrameGrid
from s3router.models.sources import locate
from s3router.models.ssl_encoder import SSLEncoder

#: To be raised when results of the same settings change.
VERSION = 3
Trial = Mapping[str, object]


@dataclass(frozen=True)
class Place:
    """Where work is done and kept.

    Arguments
    ---------
    encoder : str
        What `load_encoder` takes.
    data : str
        The folder of packs.
    work : str
        Features, heads and results of trials.
    device : str
        As torch names it.
    limit : int, optional
        At most so many dev and test clips; for a quick look.
    """

    encoder: str
    data: str
    work: str
    device: str = "cpu"
    limit: int | None = None


class Workbench:
    """What trials of one encoder share in one process.

    Arguments
    ---------
    place : Place
        Encoder, data, and where results are kept.
    """

    def __init__(self, place: Place) -> None:
        self.place = place
        self.work = Path(place.work)
        self.encoder: SSLEncoder = load_encoder(place.encoder).to(place.device)
        self.key = encoder_key(self.encoder)
        self.store = FeatureStore(self.encoder, self.work / "features")
        self._tasks: dict[str, Task] = {}
        #: Results that were not there yet.
        self.made = 0

    def about(self) -> dict[str, object]:
        """Return what the encoder is, and what it has heard if that is told."""
        encoder = self.encoder
        grid = FrameGrid.of(encoder.model.config)
        return {
            "name": shorten_paths(self.place.encoder),
            "family": encoder.family,
            "parameters": encoder.num_parameters,
            "layers": encoder.num_layers,
            "width": encoder.hidden_size,
            "frame_milliseconds": 1000 / grid.frames_per_second,
            "hours_seen": hours_heard(locate(self.place.encoder)),
            "fingerprint": encoder.fingerprint(),
            "key": self.key,
        }

    def task(self, name: str) -> Task:
        """Return a task, read once."""
        if name not in self._tasks:
            place = self.place
            task = load_task(name, Path(place.data), place.limit)
            self._tasks[name] = task
        return self._tasks[name]

    def features(self, trial: Trial) -> dict[str, Features]:
        """Return the features of a trial's clips, computed where missing."""
        task = self.task(trial["task"])
        drawn = task.draw(trial["minutes"], trial["seed"])
        return {
            "train": self.store.build(
                f"{task.name}-train", drawn, trial["copies"], task.train
            ),
            "dev": self.store.build(f"{task.name}-dev", task.dev),
            "test": self.store.build(f"{task.name}-test", task.test),
        }

    def path(self, trial: Trial) -> Path:
        """Return where the result of a trial is kept."""
        task = self.task(trial["task"])
        drawn = task.draw(trial["minutes"], trial["seed"])
        return self._path(
            f"{trial['task']}-{trial['method']}-{trial['seed']}",
            [trial, clips_key(drawn, task.dev, task.test)],
        )

    def trial(self, trial: Trial) -> dict[str, object]:
        """Return the result of a trial, from its file if it is there."""
        trial = complete(trial, self.place.device)
        return self._kept(
            self.path(trial),
            lambda: run_trial(
                trial,
                self.encoder,
                self.task(trial["task"]),
                self.features(trial),
                self.work / "heads",
            ),
        )

    def probe(self, name: str, sizes: ProbeSizes) -> dict[str, object]:
        """Return the result of a probe, from its file if it is there."""
        data = Path(self.place.data)
        parts = [PROBE_VERSION, asdict(sizes), _packs(data)]
        return self._kept(
            self._path(f"probe-{name}", parts),
            lambda: run_probe(name, self.encoder, data, self.store, sizes),
        )

    def _kept(
        self, path: Path, compute: Callable[[], dict[str, object]]
    ) -> dict[str, object]:
        if not path.is_file():
            write_json(path, compute())
            self.made += 1
        return read_json(path)

    def _path(self, name: str, parts: list) -> Path:
        text = json.dumps([VERSION, *parts], sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()[:12]
        return self.work / "trials" / self.key / f"{name}-{digest}.json"


def _packs(data: Path) -> list[str]:
    """Return names and sizes of the packs' tables: what a probe hangs on."""
    tables = sorted(data.glob("*/*.csv"))
    return [f"{p.parent.name}/{p.name}:{p.stat().st_size}" for p in tables]


@lru_cache(maxsize=1)
def workbench(place: Place) -> Workbench:
    """Return this process's workbench; of one encoder at a time."""
    return Workbench(place)


def do(
    place: Place, kind: str, argument: object
) -> tuple[dict[str, object], bool]:
    """Do one job: `features` of a trial, a `trial`, or a `probe`.

    Arguments
    ---------
    place : Place
        Where.
    kind : str
        Which of the three.
    argument : object
        A trial, or a probe's name and sizes.

    Returns
    -------
    result : dict
        Of features, nothing.
    made : bool
        Whether it was not there yet.
    """
    bench = workbench(place)
    before = bench.made
    result: dict[str, object] = {}
    if kind == "probe":
        result = bench.probe(*argument)
    elif kind == "features":
        bench.features(complete(argument, place.device))
    else:
        result = bench.trial(argument)
    return result, bench.made > before
