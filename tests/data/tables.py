"""Small files of tables."""

import csv
import pathlib

import numpy as np

HEADER = ("size", "colour", "weight", "y")


def rows(count=40, seed=0):
    """Numbers, words, numbers with gaps, and a label."""
    rng = np.random.default_rng(seed)
    made = []
    for i in range(count):
        weight = "" if i % 8 == 3 else f"{rng.normal(5, 2):.3f}"
        colour = ("red", "green", "blue")[i % 3]
        made.append([f"{rng.normal():.3f}", colour, weight, str(i % 2)])
    return made


def write_csv(path: pathlib.Path, content, header=HEADER, delimiter=","):
    """A CSV or TSV; returns its path as a string."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([header, *content] if header else content)
    return str(path)
