"""Draw the pictures of README and docs from what the commands wrote; `make pictures` runs both."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pandas as pd
from playwright.sync_api import sync_playwright

from codi_lens import CodiModel, logit_lens, open_attention, plots
from codi_lens.plots.drawing.style import width_of
from codi_lens.problems import word_problems

IMAGES = Path(__file__).parent / "images"


def main(reports: Path) -> None:
    """Draw from the folders analysis, study, ablation, patching and grading."""
    analysis, study, ablation, patching, grading = (
        reports / name for name in ("analysis", "study", "ablation", "patching", "grading")
    )
    quantities = pd.read_csv(study / "results" / "tiny-llama" / "corrected_quantities.csv")
    figures = {
        "study": plots.corrected_triptych("tiny-llama", quantities.astype({"at": str})),
        "causal_map": plots.causal_map(pd.read_csv(ablation / "heads.csv")),
        "causal_map_by_position": plots.causal_map(pd.read_csv(ablation / "heads_by_position.csv")),
        "totals": plots.total_swap_matrix(pd.read_csv(patching / "total_swaps.csv")),
        "restoration": plots.restoration_map(pd.read_csv(patching / "restoration_resid_pre.csv")),
        "grades": plots.grades_figure(pd.read_csv(grading / "grades.csv")),
        "edge_costs": plots.edge_costs_figure(pd.read_csv(grading / "edge_costs.csv")),
        "edges": plots.edge_matrix(pd.read_csv(patching / "edges.csv")),
    }
    model, some = CodiModel.from_pretrained("tiny-gpt2"), word_problems(2, seed=5, n_operations=4)
    figures["tokens"] = plots.top_tokens(logit_lens(model, some, progress=False))
    run = model.think([problem.question for problem in some])
    figures["run_attention"] = plots.run_attention(run, "L1H7")
    figures["edges"].update_layout(width=790)  # as long as its subtitle
    for name, figure in figures.items():
        figure.write_image(IMAGES / f"{name}.png", width=width_of(figure), scale=2)
    photograph(analysis / "index.html", "explorer", 1500, 1010)
    photograph(analysis / "index.html", "explorer_phone", 390, 1500, dark=True)
    id = str(open_attention(analysis / "attention.zarr")["problem"].values[24])
    effect = "Effect of ablating (resample)/effect"
    state = f"head=L2H3&problem={id}&diff=mean&cell=anchor,ct0&quantity={effect}"
    explored = reports / "explored.html"
    photograph(explored, "explorer_difference", 1500, 900, dark=True, state=state)


def photograph(
    page: Path, name: str, width: int, height: int, *, dark: bool = False, state: str = ""
) -> None:
    """A picture of an explorer in a browser without a network."""
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        raise SystemExit("The pictures of the explorer need chromium or google-chrome.")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=browser, args=flags)
        opened = started.new_page(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
            offline=True,
        )
        opened.goto(f"{page.resolve().as_uri()}#{state}")
        opened.wait_for_selector("[data-ready=yes]")
        opened.screenshot(path=IMAGES / f"{name}.png")
        started.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
