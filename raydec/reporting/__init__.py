"""What a trained model is worth: evaluation, prediction, intervals, cluster analysis, events."""
