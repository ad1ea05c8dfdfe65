"""The maths of an epoch, independent of Ray."""
