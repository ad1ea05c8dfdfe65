"""The networks, and the model directory they are saved to and loaded from."""
