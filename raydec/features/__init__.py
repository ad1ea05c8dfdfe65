"""From audio files to a memory-mapped store of mel frames, and from frames to chunks."""
