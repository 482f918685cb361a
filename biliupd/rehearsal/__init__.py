"""The stand-in live site and the stand-in Bilibili: real servers on loopback for `biliupd demo` and for the tests.

The servers know nothing of the rest of biliupd; what is played against them (demo, selftest) does. Nothing but cli and
the tests imports it.
"""
