"""biliupd records live streams unattended and publishes them on Bilibili, once.

As a library: `biliupd.upload_video(cookies, file_path, title, desc="", **fields) -> bvid`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from biliupd.publish.once import upload_video

__all__ = ["__version__", "upload_video"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "upload_video":  # when it is asked for: a recorder process must stay light
        from biliupd.publish.once import upload_video

        return upload_video
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
