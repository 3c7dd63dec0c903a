"""Where numbers go while a learner runs: TensorBoard, a CSV file, the terminal."""

import csv
from pathlib import Path

from rich.console import Console
from rich.table import Table


class TensorBoardLog:
    """Scalars for TensorBoard.

    Args:
        folder: where the event files go.
        resumed_at: on resume, the step after which earlier entries no longer count.
    """

    def __init__(self, folder: str | Path, resumed_at: int | None = None) -> None:
        from torch.utils.tensorboard import SummaryWriter  # loads slowly, and not every run logs

        self._writer = SummaryWriter(str(folder), purge_step=resumed_at)

    def __call__(self, steps: int, metrics: dict[str, float]) -> None:
        """Write every metric at ``steps``."""
        for name, value in metrics.items():
            self._writer.add_scalar(name, value, steps)

    def close(self) -> None:
        """Flush and close."""
        self._writer.close()


class CsvLog:
    """One row per entry; columns that appear later are added to the whole file.

    Args:
        path: the file.
        resumed_at: on resume, rows after this step are dropped.
    """

    def __init__(self, path: Path, resumed_at: int | None = None) -> None:
        self.path = path
        self._columns: list[str] = ["steps"]
        if path.exists():
            with path.open(newline="") as file:
                kept = [
                    row
                    for row in csv.DictReader(file)
                    if resumed_at is not None and int(row["steps"]) <= resumed_at
                ]
            self._rewrite(kept)

    def __call__(self, steps: int, metrics: dict[str, float]) -> None:
        """Add a row."""
        row = {"steps": str(steps), **{name: repr(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new or not self.path.exists():
            self._columns += new
            self._rewrite(read_csv(self.path) if self.path.exists() else [])
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def _rewrite(self, rows: list[dict[str, str]]) -> None:
        for row in rows:
            self._columns += [name for name in row if name not in self._columns]
        partial = self.path.with_name(self.path.name + ".partial")
        with partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)
        partial.replace(self.path)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file, as text."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def print_table(steps: int, metrics: dict[str, float]) -> None:
    """Print the metrics in groups, as Stable-Baselines3 does."""
    table = Table(title=f"step {steps:,}", show_header=False)
    for name, value in sorted(metrics.items()):
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
