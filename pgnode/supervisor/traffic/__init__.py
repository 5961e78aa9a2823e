"""Traffic counters: reading, the ledger, what callers are given, and what they see."""
