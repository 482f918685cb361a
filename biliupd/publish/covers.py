"""Covers: a picture file → its address at Bilibili, and the picture of a live room → a file.

Runs on the pipeline's workers. Writes only the file it is asked for.
"""

import base64
import os
import stat
from pathlib import Path
from urllib.parse import urlsplit

import requests
import urllib3.exceptions

from biliupd.config import trusted_certificates
from biliupd.errors import PermanentError, TemporaryError
from biliupd.publish.member import WEB_AGENT, Member, body_of, no_netrc

MOST_COVER_BYTES = 10 << 20
PICTURES = {b"\xff\xd8\xff": "jpeg", b"\x89PNG\r\n\x1a\n": "png", b"RIFF": "webp"}
FETCH_SECONDS = 15.0


def upload_cover(member: Member, path: Path) -> str:
    """A JPEG, PNG or WebP file → its address at Bilibili. Raises PermanentError for anything else."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise PermanentError(f"cover {path}: no regular file")  # of a pipe, reading might never end
            picture = file.read(MOST_COVER_BYTES + 1)
    except OSError as error:
        raise PermanentError(f"cover {path}: {error.strerror}") from error
    kind = next((PICTURES[start] for start in PICTURES if picture.startswith(start)), None)
    if not kind or len(picture) > MOST_COVER_BYTES:
        raise PermanentError(f"cover {path}: not a JPEG, PNG or WebP picture of at most {MOST_COVER_BYTES >> 20} MiB")
    form = {"cover": f"data:image/{kind};base64,{base64.b64encode(picture).decode()}", "csrf": member.credential.csrf}
    answer = member.call("POST", f"{member.publish.member_url}/x/vu/web/cover/up", what="cover", form=form)
    url = answer.get("url") if isinstance(answer, dict) else None
    if not isinstance(url, str) or not url:
        raise TemporaryError("cover: Bilibili gave no address for it")
    return url


def fetch_picture(url: str, path: Path) -> Path:
    """Download a picture of at most 10 MiB. Raises TemporaryError, PermanentError for an address that is none."""
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not url.startswith(("http://", "https://")) or not host:
        raise PermanentError("the picture's address is none of http")
    try:
        with requests.get(url, headers={"User-Agent": WEB_AGENT}, timeout=FETCH_SECONDS, stream=True, auth=no_netrc,
                          verify=trusted_certificates()) as response:  # fmt: skip
            response.raise_for_status()
            picture = body_of(response, MOST_COVER_BYTES, 2 * FETCH_SECONDS)
        path.write_bytes(picture)
    except requests.exceptions.ContentDecodingError as error:
        raise PermanentError(f"the picture at {host} is larger than {MOST_COVER_BYTES >> 20} MiB, or does not end"
                             ) from error
    except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
        raise TemporaryError(f"the picture at {host}: {type(error).__name__}") from error
    return path
