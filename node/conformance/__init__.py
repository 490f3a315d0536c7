"""The DICOM conformance statement, made from what the program uses: its contexts, bounds and tables, and the settings.

`contexts` says what is accepted and proposed, `derived` what a result has in its header, `facts` collects both with
the numbers, `statement` writes them into `statement.md`, whose sentences are what no code can say.
"""
