"""Builds the documentation site: `make docs`.

`assemble` puts the pages together, with those that are generated from the code; Zensical makes HTML of them, in strict
mode. Nothing of the site is loaded from the network when it is read: a hospital's network has none.
"""
