"""How a run is told: while it goes on, in the ledger, and afterwards."""
