"""
Genes by regions
================

From the table of a batch, as `many_datasets.py` or ``atlaszarr batch ROOT --measure ANNOTATION`` makes it. ::

    python examples/genes_by_regions.py ROOT
    python examples/genes_by_regions.py ROOT mean_red

The second argument is a column of the table: the density of expression, or, without the expression view, a mean. Of
several datasets of a gene the one that covers most of the brain is taken, and of the regions those of at least 0.5 mm3,
a third of which is covered: in small ones a few voxels decide, and a sagittal dataset has one hemisphere.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd

root, column = sys.argv[1], (*sys.argv[2:], "density")[0]
table = pd.read_parquet(f"{root}/batch/measure.parquet")
brains = table[table["acronym"] == "root"].sort_values("covered_mm3").drop_duplicates("gene", keep="last")
print("datasets:", dict(zip(brains["gene"], brains["dataset"], strict=True)))
is_measured = (table["volume_mm3"] >= 0.5) & (table["covered"] > table["voxels"] / 3)
measured = table[is_measured & table["dataset"].isin(brains["dataset"])]
genes = measured.pivot(index="gene", columns="acronym", values=column)
print(genes.to_string(float_format="{:.4f}".format))

# %%
# The regions without descendants in which the genes differ most.
leaves = measured.loc[measured["voxels"] == measured["voxels_direct"], "acronym"].unique()
regions = genes[leaves].dropna(axis="columns").T
most = regions.loc[(regions.max(axis=1) - regions.min(axis=1)).nlargest(15).index]
figure, axes = plt.subplots(figsize=(5, 5), layout="constrained")
drawn = axes.imshow(most, aspect="auto", vmin=0)
axes.set_xticks(range(len(most.columns)), most.columns)
axes.set_yticks(range(len(most)), most.index)
axes.set(title=f"{column.capitalize()} where the genes differ most", xlabel="gene", ylabel="region")
figure.colorbar(drawn, label=column)
figure.savefig("genes_by_regions.png")
