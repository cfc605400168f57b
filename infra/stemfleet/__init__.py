"""The fleet: workers on rented machines as Pulumi resources."""
