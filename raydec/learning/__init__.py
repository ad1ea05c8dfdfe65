"""The maths of an epoch. Nothing here knows of Ray."""
