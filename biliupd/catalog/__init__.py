"""What we have and how far it has come; the only SQL. Knows neither the filesystem nor the network."""
