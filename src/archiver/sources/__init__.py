"""The version-control hosts, and the one way in which they are asked."""
