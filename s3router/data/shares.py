"""A data set of ready batches, dealt out to the processes of a run.

SpeechBrain would deal the batches of one epoch out and so shorten it; here
each step takes as many batches as there are processes.
"""

from torch.utils.data import Dataset


class Share(Dataset):
    """This process's batches: they take turns.

    Item i of process p of n is item i * n + p of all.

    Arguments
    ---------
    data : torch.utils.data.Dataset
        All batches of an epoch, a multiple of `count`; its items depend on
        their number, and on what its `set_epoch` was given.
    number, count : int
        This process, from 0, and how many there are.

    Example
    -------
    >>> from torch.utils.data import StackDataset
    >>> batches = StackDataset(list("abcdef"))
    >>> share = Share(batches, 1, 2)
    >>> [share[index][0] for index in range(len(share))]
    ['b', 'd', 'f']
    """

    def __init__(self, data: Dataset, number: int, count: int) -> None:
        self.data = data
        self.number = number
        self.count = count

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, which decides what is drawn."""
        self.data.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.data) // self.count

    def __getitem__(self, index: int) -> object:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.data[index * self.count + self.number]
