"""Whatever else ffmpeg reads: it fetches, its segments become a part as those of HLS do."""
