"""HTTP-FLV: tags, what is wrong with them, and the file they become."""
