"""HLS: playlists followed, segments fetched in order."""
