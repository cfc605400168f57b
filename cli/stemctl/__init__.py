"""stemctl: sends songs to a fleet and brings stems back."""
