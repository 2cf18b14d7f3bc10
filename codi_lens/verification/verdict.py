"""The verdict on a checkpoint: what was compared, what was found, and the exit code."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from codi_lens.verification.expected import FEWER_LEVEL, Expected
from codi_lens.verification.parity import WAYS
from codi_lens.wording import count, fixed, percent


@dataclass(frozen=True)
class OfficialBatch:
    """What the padding leak of the original evaluation's batched loop does to the answers.

    Attributes:
        n: the number of problems, run as one batch.
        n_changed: answers that differ from those of the same problems one at a time.
        n_known: problems with a known answer.
        single_correct: of those, answered right one at a time.
        batched_correct: of those, answered right in the original's batch.
    """

    n: int
    n_changed: int
    n_known: int
    single_correct: int
    batched_correct: int

    def __str__(self) -> str:
        """One sentence that says it all."""
        text = (
            f"The original's batched loop, which attends to its padding, changes {self.n_changed} "
            f"of {self.n} answers"
        )
        if self.n_known:
            text += (
                f"; right are {self.batched_correct} of {self.n_known} in its batch and "
                f"{self.single_correct} one at a time"
            )
        return f"{text}."


@dataclass(frozen=True)
class Accuracy:
    """Right answers under the given settings, beside those to expect.

    Attributes:
        correct: right answers.
        n: problems with a known answer that were run.
        expected: the share to expect, and where that comes from.
    """

    correct: int
    n: int
    expected: Expected

    @property
    def p(self) -> float:
        """One-sided p-value of so few right answers."""
        return self.expected.p_fewer(self.correct, self.n)

    @property
    def too_few(self) -> bool:
        """Whether fewer are right than expected."""
        return self.p <= FEWER_LEVEL

    def __str__(self) -> str:
        """As in "38 of 40 answers are right (expected 99.5 %, evaluation.json …)"."""
        expected = f"expected {percent(self.expected.share)}, {self.expected.source}"
        return f"{self.correct} of {self.n} answers are right ({expected})"


@dataclass(frozen=True, eq=False)
class Verification:
    """Whether a model computes what its checkpoint holds, under the settings it was trained with.

    Attributes:
        source: the folder or hub name of the checkpoint.
        dtype: of the model's weights and activations.
        n: the number of problems that the reference ran.
        table: one row per quantity. `size` is its root mean square. Errors are the largest absolute
            differences between the model (all problems in one batch) and the reference (one at a
            time), `forced_…` with the reference's thoughts fed to both, `free_…` without; `noise`
            is the reference in this dtype against the reference in the next more precise one. For
            tokens and answers, errors count problems that differ.
        settings: one row per setting that was tried, the given ones first; maybe empty. See
            `codi_lens.verification.settings.Compared`.
        accuracy: under the given settings; None where settings were not compared.
        warnings: what to look at before trusting the model, one sentence each.
        official: the original evaluation's batched loop, where asked for.
    """

    source: str
    dtype: str
    n: int
    table: pd.DataFrame
    settings: pd.DataFrame
    accuracy: Accuracy | None
    warnings: tuple[str, ...]
    official: OfficialBatch | None = None

    @property
    def parity(self) -> bool:
        """Whether every quantity agrees with the reference."""
        return bool(self.table["passed"].all())

    @property
    def exit_code(self) -> int:
        """What `codi-lens verify` ends with.

        0: parity holds, no setting that was tried answers better, and no fewer answers are right
        than expected. 1: parity fails, or another setting answers better. 3: fewer answers are
        right than expected, and nothing that was tried explains it.
        """
        if not self.parity or len(self._with("variant better")):
            return 1
        return 3 if self.accuracy is not None and self.accuracy.too_few else 0

    @property
    def passed(self) -> bool:
        """Whether the exit code is 0."""
        return self.exit_code == 0

    @property
    def verdict(self) -> str:
        """The outcome, and what it cannot have seen."""
        where = f"{count(self.n, 'problem')}, in {self.dtype}"
        if not self.parity:
            failed = self.table.loc[~self.table["passed"], "quantity"].tolist()
            more = f" and {len(failed) - 4} more" if len(failed) > 4 else ""
            return (
                f"FAILED: {self.source} differs from the independent reference in "
                f"{', '.join(failed[:4])}{more} on {where}."
            )
        better = self._with("variant better")
        if len(better):
            best = max(better.to_dict("records"), key=lambda row: row["correct"] / row["n"])
            return (
                f"FAILED: {self.source} answers better with another setting, {best['setting']}: "
                f"{best['correct']} of {best['n']} right, as given {best['given_correct']}."
            )
        same = f"{self.source} equals the independent reference on {where}"
        if self.accuracy is None:
            return f"Verified: {same}."
        if self.accuracy.too_few:
            return (
                f"NOT VERIFIED: {same}, but only {self.accuracy} and none of "
                f"{count(len(self.settings) - 1, 'other setting')} explains it."
            )
        return (
            f"Verified: {same}; {self.accuracy}, and none of "
            f"{count(len(self.settings) - 1, 'other setting')} answers better. {self.unseen}"
        )

    @property
    def unseen(self) -> str:
        """What answers did not show, and what they cannot."""
        unshown = self._with("not shown")
        text = "No answer need show weights that are wrong in the file itself"
        if not len(unshown):
            return f"{text}."
        n, names = int(unshown["n"].max()), "; ".join(unshown["setting"])
        return f"{text}, and {count(n, 'answer')} did not tell these settings apart: {names}."

    def _with(self, verdict: str) -> pd.DataFrame:
        rows = self.settings
        return rows[rows["verdict"] == verdict] if len(rows) else rows

    def __rich__(self) -> RenderableType:
        """What `rich.print` shows: the tables, the warnings, and the verdict last."""
        parts: list[RenderableType] = [_parity_table(self)]
        if len(self.settings):
            parts.append(_settings_table(self.settings))
        if self.official is not None:
            parts.append(Text(f"{self.official}\n"))
        for sentence in self.warnings:
            parts.append(Text(f"! {sentence}", style="yellow"))
        parts.append(Text(self.verdict, style="bold green" if self.passed else "bold red"))
        return Group(*parts)


def _parity_table(verification: Verification) -> Table:
    table = Table(
        title=f"Model against reference, {verification.n} problems, {verification.dtype}",
        caption="largest error / noise floor / allowed, or how many differ",
        box=SIMPLE_HEAD,
        title_style="bold",
    )
    table.add_column("quantity", no_wrap=True)
    table.add_column("same thoughts fed", justify="right", no_wrap=True)
    table.add_column("free running", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in verification.table.to_dict("records"):
        counted = pd.isna(row["size"])
        cells = []
        for way in WAYS:
            values = [row[f"{way}_{part}"] for part in ("error", "noise", "allowed")]
            if counted:
                text = f"{values[0]:.0f} of {verification.n}"
                text += f" (+{values[1]:.0f} noise)" if values[1] else ""
            else:
                text = " / ".join(f"{value:.0e}" for value in values)
            cells.append(text)
        verdict = "[green]ok[/green]" if row["passed"] else "[bold red]FAILED[/bold red]"
        table.add_row(row["quantity"], *cells, verdict)
    return table


def _settings_table(settings: pd.DataFrame) -> Table:
    table = Table(
        title="Settings that no file proves",
        caption="p: exact McNemar test on right answers, adjusted for settings and looks",
        box=SIMPLE_HEAD,
        title_style="bold",
    )
    table.add_column("setting", overflow="fold")
    for column in ("right", "as given", "p", "log-prob"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    for row in settings.to_dict("records"):
        given = row["setting"] == "given"
        table.add_row(
            Text(row["setting"]),
            f"{row['correct']}/{row['n']}",
            "" if given else f"{row['given_correct']}/{row['n']}",
            "" if given else f"{row['p']:.2g}",
            "" if pd.isna(row["difference"]) else fixed(row["difference"], signed=True),
            _STYLED[row["verdict"]],
        )
    return table


_STYLED = {
    "given": "",
    "given better": "[green]given wins[/green]",
    "not shown": "not shown",
    "variant better": "[bold red]THIS WINS[/bold red]",
}
