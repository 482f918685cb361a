"""Is a streamer live, and where is the stream? Platforms say so, the poller asks them. Nothing here records."""
