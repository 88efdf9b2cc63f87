"""The search: what may be drawn, running and resuming it, its ledger, and the consensus."""
