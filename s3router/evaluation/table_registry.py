"""Which tables README files may hold: their results, columns and notes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from s3router.evaluation.aggregate import (
    QUICKSTART_COLUMNS,
    RECIPE_COLUMNS,
    quickstart_rows,
    recipe_rows,
)
from s3router.evaluation.benchmark_rows import (
    CONTROL_COLUMNS,
    ENCODER_COLUMNS,
    PROBE_COLUMNS,
    STUDY_COLUMNS,
    control_rows,
    encoder_rows,
    probe_rows,
    study_rows,
)
from s3router.evaluation.comparison_rows import (
    COMPARISON_COLUMNS,
    comparison_rows,
    summary_columns,
    summary_rows,
)
from s3router.evaluation.export_rows import (
    BAR_COLUMNS,
    EXPORT_COLUMNS,
    bar_rows,
    export_rows,
)

Rows = list[dict[str, object]]
SEEDS_NOTE = (
    "Rates in percent with 95% bootstrap intervals over test utterances; "
    "several seeds are one row: mean ± t·sqrt(mean test-set variance + "
    "seed variance / seeds), t by Welch and Satterthwaite. Where a language "
    "is written without spaces, a word of the WER is a whole sentence."
)
#: Columns of the recipe's table that the card of an encoder shows.
_WORTH = ("data", "minutes", "encoder", "method", "test_cer", "seeds")


@dataclass(frozen=True)
class Table:
    """A table that README files may hold.

    Arguments
    ---------
    pattern : str
        Where its results lie, relative to the root of the repository.
    columns : mapping or callable
        Column key to title; or what makes it from the rows.
    rows : callable
        Makes the rows from the results.
    note : str
        A line under the table.
    commands : bool
        Whether the commands behind the rows are listed too.
    """

    pattern: str
    columns: Mapping[str, str] | Callable[[Rows], Mapping[str, str]]
    rows: Callable[[Sequence[Mapping[str, object]]], Rows]
    note: str
    commands: bool = True


def _comparison(name: str) -> Table:
    return Table(
        f"recipes/commonvoice/results/compare/{name}.json",
        COMPARISON_COLUMNS,
        comparison_rows,
        "Real speech, test speakers unseen; the baseline is full tuning. Dev "
        "chose among as many values for each method. Sparsity is counted in "
        "the saved subnetwork. Differences are paired over test utterances "
        "and seeds. Seconds and memory are of runs that shared the machine "
        "with another; stages of one run share a process, and its peak.",
    )


def _summary(name: str) -> Table:
    return Table(
        f"recipes/commonvoice/results/compare/{name}.json",
        summary_columns,
        summary_rows,
        "Test CER in percent and, in brackets, points against full tuning "
        "with their 95% interval, paired over test utterances and seeds.",
        commands=False,
    )


def _all_quickstart_rows(results: Sequence[Mapping[str, object]]) -> Rows:
    return [
        {**row, "command": result["command"]}
        for result in results
        for row in quickstart_rows(result["metrics"]["rows"])
    ]


TABLES = MappingProxyType(
    {
        "commonvoice": Table(
            "recipes/commonvoice/results/*.json",
            RECIPE_COLUMNS,
            recipe_rows,
            SEEDS_NOTE,
        ),
        "worth": Table(
            "recipes/commonvoice/results/*.json",
            {key: RECIPE_COLUMNS[key] for key in _WORTH},
            recipe_rows,
            "Masks remove half of all linear layers' weights, LoRA takes as "
            "many bytes. Commands: `recipes/commonvoice/README.md`.",
            commands=False,
        ),
        "compare-methods": _comparison("methods"),
        "compare-methods-summary": _summary("methods"),
        "compare-sparsities": _comparison("sparsities"),
        "compare-labels": _comparison("labels"),
        "compare-labels-summary": _summary("labels"),
        "compare-masks": _comparison("masks"),
        "compare-masks-summary": _summary("masks"),
        "encoder": Table(
            "benchmarks/results/encoder_tiny*.json",
            ENCODER_COLUMNS,
            encoder_rows,
            "Real speech, test speakers unseen. Each method's rate was chosen "
            "on dev among as many; stored is what a method adds to the head. "
            "Differences are paired over test clips and seeds.",
        ),
        "probes": Table(
            "benchmarks/results/probes_tiny.json",
            PROBE_COLUMNS,
            probe_rows,
            "Frozen features, speakers of the test unseen but where the "
            "speaker is asked. Layers and steps were chosen on dev. Accuracy: "
            "more is better; PER and CER: less.",
        ),
        "study": Table(
            "benchmarks/results/study.json",
            STUDY_COLUMNS,
            study_rows,
            "Real speech, test speakers unseen, one labelled draw; one rate a "
            "method for all, which dev chose on an earlier encoder. Teraflop: "
            "6 x parameters x frames heard.",
        ),
        "pools": Table(
            "benchmarks/results/pools.json",
            STUDY_COLUMNS,
            study_rows,
            "Real speech, test speakers unseen, one labelled draw (of "
            "phones_first three); one rate a method for all, which dev chose "
            "on that encoder.",
        ),
        "controls": Table(
            "benchmarks/results/controls_tiny.json",
            CONTROL_COLUMNS,
            control_rows,
            "Real speech, test speakers unseen; all rows have as many rates to "
            "choose from. Differences are paired over test clips.",
        ),
        "export": Table(
            "benchmarks/results/export_*.json",
            EXPORT_COLUMNS,
            export_rows,
            "Random weights and masks. Each bundle ran in turns with the dense "
            "fp32 export, 5 and 15 s of audio; minima of process time (one "
            "thread) or wall time. Opening takes: private memory.",
        ),
        "export-bars": Table(
            "benchmarks/results/export_wav2vec2-base.json",
            BAR_COLUMNS,
            bar_rows,
            "From the table of bundles; run times are those of its clips "
            "together, on one thread.",
        ),
        "quickstart": Table(
            "recipes/commonvoice/results/synthetic/*.json",
            QUICKSTART_COLUMNS,
            _all_quickstart_rows,
            "Synthetic speech. Rates in percent with 95% bootstrap intervals "
            "over test utterances.",
        ),
    }
)
