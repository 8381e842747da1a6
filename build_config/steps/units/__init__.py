"""Build units: what makes each what it is, the store of finished ones, and how missing ones are compiled."""
