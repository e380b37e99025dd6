"""Greedy CTC decoding while training: the device's rule on a torch tensor.

The rule itself is `s3router.runtime.decode.greedy_ctc`, so that a dev-set
error rate is measured with what later runs.
"""

from s3router.runtime.decode import greedy_ctc

__all__ = ["greedy_ctc"]
