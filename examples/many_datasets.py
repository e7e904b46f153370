"""
Many datasets on a cluster
==========================

Each dataset is one task of a dask cluster: it is built, and measured in the regions of an annotation. ::

    python examples/many_datasets.py ROOT ANNOTATION 74272479 69289763

The same command resumes. Here the cluster is two processes; the address of a scheduler does as well.
"""

import sys

import matplotlib.pyplot as plt
import pandas as pd
from distributed import LocalCluster

import atlaszarr

if __name__ == "__main__":  # the processes of a LocalCluster import this file
    root, annotation, *ids = sys.argv[1:]
    with LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster:
        report = atlaszarr.build_many(
            map(int, ids),
            root,
            view=("primary", "expression"),
            resolution=100,
            measure=annotation,
            scheduler=cluster,
            client=atlaszarr.AllenClient(cache="none"),  # or a folder or URL that all workers can open
        )
    print(report.states)
    print(pd.read_csv(report.table)[["dataset", "state", "gene", "images"]].to_string(index=False))
    measures = pd.read_parquet(report.measures)
    covered = measures[measures["acronym"] == "root"].set_index("gene")[["volume_mm3", "covered_mm3"]]
    figure, axes = plt.subplots(figsize=(7, 2.5), layout="constrained")
    covered.plot.barh(ax=axes, xlabel="volume, mm3", title="What the sections cover of the brain", legend=False)
    axes.invert_yaxis()  # in the order of the legend
    figure.legend(["brain", "covered"], loc="outside right upper")
    figure.savefig("many_datasets.png")
