"""A video and a cover → a bvid: credentials, upload lines, UPOS, submissions.

Runs on the pipeline's workers, or in any program that imports `biliupd.publish.once`. Touches Bilibili and reads the
files it is told to; knows neither the catalog nor how a file came to be.
"""
