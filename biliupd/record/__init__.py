"""A live stream becomes media on disk. Keep this file empty of imports: a recorder process loads it."""
