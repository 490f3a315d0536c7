"""The error tree of the node: the type of an error says what happens next.

NodeError
├── Retryable          the same work may succeed later (a peer is down, a disk is full, a lease was lost)
│   └── GiveBack             whatever did the work is gone, by no fault of the work: that was no try
├── Permanent          the same work will fail again (a file cannot be read, a geometry cannot be processed)
│   ├── UnreadableInstance   one file is not a DICOM image that this node can read
│   │   ├── AmbiguousInstance    two programs may read two different images in it
│   │   └── DamagedInstance  its file is gone, or has other bytes than were received: the instance must come again
│   ├── Doubtful             the work can be done, but a person must first say that it should
│   └── Misconfigured        this machine cannot do what the settings ask for; nothing starts
└── Refused            an operator asked for something that a safety rule forbids

Messages are sentences for an administrator: UIDs and job ids, never a patient's name or ID.
"""


class NodeError(Exception):
    """Root of every error that this package raises on purpose."""


class Retryable(NodeError):
    """The work failed for a reason that may pass; it is tried again after a pause."""


class GiveBack(Retryable):
    """Whatever did the work is gone, and the work is not to blame: it is done again at once, and this was no try."""


class Permanent(NodeError):
    """The work failed for a reason that will not pass by itself; a person has to act."""


class UnreadableInstance(Permanent):
    """A file is not a DICOM instance, or lacks what every instance must have."""


class AmbiguousInstance(UnreadableInstance):
    """A file says something twice, or something else than what the receiver read: nothing may be made of it."""


class DamagedInstance(UnreadableInstance):
    """A file that was kept is gone, cannot be read, or has other bytes than were received."""


class Doubtful(Permanent):
    """An input contradicts itself: nothing is made of it before a person has looked at it; its job is HELD."""


class Misconfigured(Permanent):
    """The settings ask for what cannot be had here: a port in use, a certificate that cannot be read."""


class Refused(NodeError):
    """The request is understood and forbidden: it would break a promise of the node."""
