"""How a demo ends where it does not end well."""

from node.errors import NodeError


class DemoFailed(NodeError):
    """A step did not do what it must; the message says which, and where the log is."""
