"""Refinement: a better registration of section images to an annotation, section by section. Arithmetic only.

Arrays in, arrays and figures out: nothing here reads a file or knows a dataset. `section` fits one section, by way of
`darkness`, `regions`, `polynomial`, `affine` and `deformation`; `depth` finds the depths of all sections of a dataset,
`coherence` makes their fields agree, and `flags` names those not to believe.

Constants without a reason of their own were chosen on the tuning seeds of ``tests/benchmarks/refinement.py``, and the
figures in ``tests/benchmarks/README.md``, on other seeds and on a real section, hold for them as they are: a change of
any needs these figures anew.
"""
