"""Publish one file and be done: for scripts that use biliupd as a library, without daemon or catalog."""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from biliupd.config import PublishConfig, Template
from biliupd.errors import UnknownOutcome
from biliupd.publish import line as lines
from biliupd.publish.archives import find
from biliupd.publish.covers import upload_cover
from biliupd.publish.credential import Credential
from biliupd.publish.member import Member
from biliupd.publish.studio import Part, studio
from biliupd.publish.submission import submit
from biliupd.publish.upos import upload

LOOK_AFTER_SECONDS = (5.0, 25.0, 60.0)


def upload_video(
    cookies: Path | str, file_path: Path | str, title: str, desc: str = "", *,
    on_progress: Callable[[int, int], None] | None = None, publish: PublishConfig | None = None,
    cover: Path | str | None = None, stop: threading.Event | None = None, wait: Callable[[float], object] = time.sleep,
    **fields: Any,
) -> str:
    """Upload a file, submit it as a video of one part and return its bvid.

    `fields` are those of `Template` (tags, tid, copyright, source, dynamic, ...); `on_progress(sent, total)` in bytes.
    Raises the errors of the family. When the answer to the submit is lost, the account's list is asked for a minute and
    a half; UnknownOutcome means that it was in vain: look at Bilibili before you publish the file again.
    """
    publish, path = publish or PublishConfig(), Path(file_path)
    template = Template().model_copy(update={"title": title, "desc": desc, **fields})
    member = Member(publish, Credential.load(Path(cookies)))
    member.whoami()
    cover_url = upload_cover(member, Path(cover)) if cover is not None else ""
    done = upload(path, member, lines.choose(publish, member), stop=stop or threading.Event(), on_progress=on_progress)
    body, began = studio(template, [Part(done.filename, path.stem, done.cid)], cover_url=cover_url), datetime.now(UTC)
    try:
        return submit(member, body).bvid
    except UnknownOutcome as error:
        for seconds in LOOK_AFTER_SECONDS:
            wait(seconds)
            if found := find(member, [done.filename], began):
                return found.bvid
        raise UnknownOutcome(
            f"{path.name}: {error}, and the account's list does not show it",
            hint="look at the account's submissions before you publish this file again") from error
