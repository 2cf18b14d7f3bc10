"""Set the seeds of a tiny model side by side: writes seeds.json, which its card shows.

    python checkpoints/seeds.py tiny-recall GRADES FOLDER=GRADES FOLDER=GRADES

The first GRADES is that of the shipped checkpoint; each FOLDER holds another seed, measured by
evaluate.py, and GRADES is what `codi-lens grade FOLDER --control …-control --out GRADES` wrote.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from card import model_card

HERE = Path(__file__).parent


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Set the seeds of a tiny model side by side.")
    parser.add_argument("name", help="a folder beside this file, such as tiny-recall")
    parser.add_argument("grades", type=Path, help="of the shipped checkpoint")
    parser.add_argument("others", nargs="+", help="FOLDER=GRADES of every other seed")
    options = parser.parse_args(arguments)
    shipped = HERE / options.name
    others = [tuple(map(Path, each.split("="))) for each in options.others]
    seeds = [seed_of(folder, grades) for folder, grades in [(shipped, options.grades), *others]]
    seeds = sorted(seeds, key=lambda seed: seed["seed"])
    (shipped / "seeds.json").write_text(json.dumps(seeds, indent=2) + "\n")
    results = json.loads((shipped / "evaluation.json").read_text())
    (shipped / "README.md").write_text(model_card(options.name, shipped, results))


def seed_of(folder: Path, grades: Path) -> dict[str, Any]:
    """What a seed's evaluation and grades say, in short."""
    training = json.loads((folder / "codi_config.json").read_text())["training"]
    results = json.loads((folder / "evaluation.json").read_text())
    table = pd.read_csv(grades / "grades.csv").set_index("score")
    kept = ("auroc", "auroc_low", "auroc_high")
    return {
        "seed": training["seed"],
        "accuracy": results["conditions"]["six thoughts"],
        "zeroed": results["conditions"]["thoughts zeroed"]["all"],
        "edges": results["edges"]["against"]["mixed"][0],
        "n_graded": int(table["n"].max()),
        "auroc": {
            str(score): {name: float(row[name]) for name in kept} for score, row in table.iterrows()
        },
    }


if __name__ == "__main__":
    main()
