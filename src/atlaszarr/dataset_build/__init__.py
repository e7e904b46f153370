"""Plan and build of a section dataset. `api` says how a build works; the options are in `sections.options`."""
