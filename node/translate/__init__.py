"""A series of files becomes a derived series, and the worker records what became of it.

Only the worker knows the store; a job is a function from files to files, without store, settings or network.
"""
