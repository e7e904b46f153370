"""
Genes by regions
================

From the table of a batch, as `many_datasets.py` or ``atlaszarr batch ROOT --measure ANNOTATION`` makes it. ::

    python examples/genes_by_regions.py ROOT
    python examples/genes_by_regions.py ROOT mean_red

The second argument is a column of the table: the density of expression, or, without the expression view, a mean.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd

root, column = sys.argv[1], (*sys.argv[2:], "density")[0]
table = pd.read_parquet(f"{root}/batch/measure.parquet")
covered = table[table["covered"] > 0]
genes = covered.pivot_table(index="gene", columns="acronym", values=column)
print(genes.to_string(float_format="{:.4f}".format))

# %%
# The regions without descendants that have most of it, over all genes.
leaves = covered.loc[covered["voxels"] == covered["voxels_direct"], "acronym"].unique()
most = genes[leaves].T.loc[genes[leaves].mean().nlargest(15).index]
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
drawn = axes.imshow(most, aspect="auto")
axes.set_xticks(range(len(most.columns)), most.columns)
axes.set_yticks(range(len(most)), most.index)
axes.set(title=f"{column}; white: not covered", xlabel="gene", ylabel="region")
figure.colorbar(drawn, label=column)
figure.savefig("genes_by_regions.png")
