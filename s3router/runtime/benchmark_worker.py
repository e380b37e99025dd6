"""A recogniser in a process of its own, which measures what it is told to do.

`s3router.runtime.benchmark` starts it. It reads requests, one JSON a line, and
answers each with one. Nothing but the recogniser is imported, so that its
memory is that of a device.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any, TextIO

import numpy as np

from s3router.errors import S3RouterError, one_of
from s3router.runtime.memory import memory_use
from s3router.runtime.providers import import_onnxruntime
from s3router.runtime.recognizer import Recognizer


class Measured:
    """What can be asked of a worker; each answer is ready for JSON."""

    def __init__(self) -> None:
        self._recognizers: list[Recognizer] = []

    def open(self, **settings: Any) -> dict[str, Any]:
        """Open a recogniser, beside those that are open already.

        Arguments
        ---------
        **settings : Any
            Arguments of `Recognizer`.

        Returns
        -------
        dict
            "wall" and "cpu" seconds, and the memory "before" and "after".
        """
        import_onnxruntime()
        before = memory_use()
        spent = _timed(lambda: self._recognizers.append(Recognizer(**settings)))
        return {**spent, "before": before, "after": memory_use()}

    def run(self, clip: str) -> dict[str, Any]:
        """Run a clip through the recogniser that was opened last.

        Arguments
        ---------
        clip : str
            A `.npy` file of `(samples,)` float32 at the bundle's rate.

        Returns
        -------
        dict
            "wall" and "cpu" seconds.
        """
        samples = np.load(clip, allow_pickle=False)
        recognizer = self._recognizers[-1]
        classifies = recognizer.task == "classification"
        work = recognizer.classify if classifies else recognizer.transcribe
        return _timed(lambda: work(samples))

    def switch(self, language: str) -> dict[str, Any]:
        """Change the language of the recogniser that was opened last.

        Arguments
        ---------
        language : str
            Its code.

        Returns
        -------
        dict
            "wall" and "cpu" seconds.
        """
        return _timed(lambda: self._recognizers[-1].switch(language))

    def memory(self) -> dict[str, Any]:
        """Return what `memory_use` says now."""
        return memory_use()


def serve(requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are no more.

    Arguments
    ---------
    requests : file
        Lines of JSON: {"do": a method of `Measured`, its arguments ...}.
    answers : file
        Gets one line of JSON for each; {"error": text} where it failed.
    """
    measured = Measured()
    actions = {
        name: getattr(measured, name)
        for name in ("open", "run", "switch", "memory")
    }
    for line in requests:
        request = json.loads(line)
        try:
            action = actions[one_of(request.pop("do"), actions, "request")]
            answer = action(**request)
        except S3RouterError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


def _timed(work: Callable[[], object]) -> dict[str, float]:
    """Return the seconds of a call, on the wall and of all our threads."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return {
        "wall": time.perf_counter() - wall,
        "cpu": time.process_time() - cpu,
    }


if __name__ == "__main__":
    # What libraries print must not come between the answers.
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    serve(sys.stdin, private)
