"""Files: local, remote, and complete under their names or not there at all."""
