"""The stand-in live site and the stand-in Bilibili: real servers on loopback for `biliupd demo` and for the tests.

Nothing here knows the rest of biliupd, and nothing but cli and the tests imports it.
"""
