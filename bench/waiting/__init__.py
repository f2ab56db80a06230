"""Many clients that wait at once, and what everybody else sees of the web process meanwhile."""
