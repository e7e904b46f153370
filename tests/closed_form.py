"""The recorded alignments of datasets as matrices, and how far values are from where a closed form puts them."""

import csv
from importlib.resources import files

import numpy as np


def figures(dataset):
    """(trv, tvr, thickness, {image id: section number}) from the recorded figures."""
    folder = files("atlaszarr.testing") / "figures"

    def rows(name):
        lines = (folder / name).read_text().splitlines()
        return list(csv.DictReader(line for line in lines if not line.startswith("#")))

    record = next(row for row in rows("section_datasets.csv") if int(row["id"]) == dataset)

    def matrix(name):
        linear = [float(record[f"{name}_{k:02d}"]) for k in range(9)]
        return np.reshape(linear, (3, 3)), np.array([float(record[f"{name}_{k:02d}"]) for k in range(9, 12)])

    numbers = {
        int(row["id"]): int(row["section_number"])
        for row in rows("section_images.csv")
        if int(row["data_set_id"]) == dataset
    }
    return matrix("trv"), matrix("tvr"), float(record["section_thickness"]), numbers


def misplacement(difference, gradient):
    """The least-squares fit of a shift (p, i, r) in um to the differences."""
    return np.linalg.lstsq(gradient.reshape(-1, 3), difference.reshape(-1), rcond=None)[0]
