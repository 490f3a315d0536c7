"""The one place where parts meet: settings in, wired parts out; it decides nothing.

`store` opens what a reader needs and loads fast; `roles` wires receiver, worker and courier, and loads what they need.
"""
