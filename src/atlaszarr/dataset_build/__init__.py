"""Plan and build of a section dataset. `api` says how a build works; its options are in `sections.options`.

`records` writes ``build.json``, ``sections.csv`` and ``failures.csv``.
"""
