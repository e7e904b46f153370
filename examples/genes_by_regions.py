"""Genes by regions, from the table of a batch: `atlaszarr batch ROOT --view primary --view expression --measure ...`.

    python examples/genes_by_regions.py ROOT
    python examples/genes_by_regions.py ROOT mean_red

The second argument is a column of the table: the density of expression, or, without the expression view, a mean.
"""

import sys

import pandas as pd


def main(root: str, column: str = "density") -> None:
    table = pd.read_parquet(f"{root}/batch/measure.parquet")
    covered = table[table["covered"] > 0]
    genes = covered.pivot_table(index="gene", columns="acronym", values=column)
    print(genes.to_string(float_format="{:.4f}".format))


if __name__ == "__main__":
    main(*sys.argv[1:])
