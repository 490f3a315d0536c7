"""The one place where parts meet: settings in, wired parts out; it decides nothing.

`store` opens what a reader needs and loads fast; `roles` wires receiver, completion and courier; `worker` wires the
worker, and loads what only a job needs.
"""
