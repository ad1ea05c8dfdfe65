"""What a search is, without what runs it: settings, space, plan, placement, scores, ledger. No Ray here."""
