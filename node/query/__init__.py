"""Query/Retrieve as an SCP (PS3.4 annex C) over the derived series that may be sent."""
