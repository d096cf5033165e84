"""What a study says, read from its records only."""
