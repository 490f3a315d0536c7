"""What a kind of planning system wants in the headers of a CT series: one TOML file for each, and what judges by it."""
