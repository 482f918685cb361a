"""biliupd records live streams unattended and publishes them on Bilibili, once."""

__version__ = "0.1.0"
