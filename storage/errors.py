"""The error tree of the store.

StorageError
├── IllegalTransition   a state machine has no such arrow; the caller knows an older row or a wrong one
├── LeaseLost           another process owns the work now; drop it without writing anything
├── NotFound            no such series, job or delivery
├── ObjectsUnavailable  the object store does not answer, or refuses; it may pass, and says nothing about a file
├── SpoolFull           less free space than the operator reserved; nothing was accepted
├── StoreUnavailable    the database cannot be opened or read; the sentence says what the system answered
├── UnusableUrl         the settings name a database that this version cannot use
├── WrongStore          the store is empty beside a full spool, or belongs to another spool; only a person can tell
└── SchemaMismatch      the database was made by another version; an administrator has to upgrade it
"""


class StorageError(Exception):
    """Root of every error that this package raises on purpose."""


class IllegalTransition(StorageError):
    """The row is in a state from which the requested state cannot be reached."""


class LeaseLost(StorageError):
    """The lease expired, or an operator took the work away: the caller must stop and write nothing."""


class NotFound(StorageError):
    """The identifier names nothing in the store."""


class ObjectsUnavailable(StorageError):
    """The object store does not answer, refuses, or is not the one of this node; no file is lost by that."""


class SpoolFull(StorageError):
    """The spool's file system has less free space than `retention.min_free_gb`."""


class StoreUnavailable(StorageError):
    """The database cannot be opened, or what was read of it cannot be trusted."""


class UnusableUrl(StorageError):
    """The URL of the database is none, or names a kind of database or a driver that is not there."""


class WrongStore(StorageError):
    """The store and the spool do not belong together; to begin would let what was acknowledged be forgotten."""


class SchemaMismatch(StorageError):
    """The database schema is not the one this version was written for."""
