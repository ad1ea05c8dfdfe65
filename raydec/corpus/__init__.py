"""Who said what: readers that turn a corpus on disk into one validated utterance table."""
