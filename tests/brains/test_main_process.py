"""One process works, the others wait: in two real processes."""

import datetime
import os
import time

import torch
from torch import distributed

from s3router.brains.main_process import (
    on_main,
    process_number,
    sum_over_processes,
)
from s3router.brains.running_sums import RunningSums


def in_two_processes(folder, work):
    """Fork two processes that have met; return their exit statuses."""
    children = []
    for rank in range(2):
        child = os.fork()
        if child:
            children.append(child)
            continue
        status = 70
        # As torchrun sets it; SpeechBrain looks there.
        os.environ["RANK"] = str(rank)
        try:
            distributed.init_process_group(
                "gloo",
                init_method=f"file://{folder}/meeting",
                rank=rank,
                world_size=2,
                # Shorter than the main process works.
                timeout=datetime.timedelta(seconds=1),
            )
            work(rank)
            status = 0
        except SystemExit as error:
            status = error.code
        except ValueError:
            status = 3
        finally:
            os._exit(status)
    waited = [os.waitpid(child, 0)[1] for child in children]
    return [os.waitstatus_to_exitcode(status) for status in waited]


def test_the_others_wait_longer_than_their_group_would(tmp_path):
    def work(rank):
        assert process_number() == (rank, 2)

        def slow():
            time.sleep(2.5)
            (tmp_path / "made").write_text(str(rank))

        on_main(slow)
        # Both go on behind it, in the group that they met in.
        assert (tmp_path / "made").read_text() == "0"
        found = sum_over_processes(torch.tensor([1.0 + rank]))
        assert found.item() == 3.0

    assert in_two_processes(tmp_path, work) == [0, 0]


def test_an_error_is_that_of_the_main_process(tmp_path):
    def work(rank):
        def fail():
            raise ValueError

        on_main(fail)

    assert in_two_processes(tmp_path, work) == [3, 1]


def test_sums_are_gathered_on_the_main_process(tmp_path):
    def work(rank):
        sums = RunningSums()
        sums.start()
        sums.add(loss=1.5 + rank, batches=1)
        sums.gather("cpu")
        expected = dict.fromkeys(("batches", "loss"), 0.0)
        if rank == 0:
            expected = {"batches": 2.0, "loss": 4.0}
        assert sums.totals() == expected
        # What a checkpoint holds is all of it, and counts once.
        sums._save(tmp_path / "sums.json")
        distributed.barrier()
        again = RunningSums()
        again._load(tmp_path / "sums.json", end_of_epoch=False)
        again.start()
        # Killed behind an epoch's last step: nothing more is added.
        again.gather("cpu")
        assert again.totals() == expected

    assert in_two_processes(tmp_path, work) == [0, 0]
