"""A body → a submission (稿件) at Bilibili, or parts appended to one.

Runs on the pipeline's workers. A submission is sent once; what became of it when no answer came is for
`archives.find` to say. An edit names everything a submission holds, so that one view tells whether it was taken.
"""

import re
import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

import requests

from biliupd.errors import BiliupdError, PermanentError, TemporaryError, UnknownOutcome
from biliupd.publish.archives import Submitted, view
from biliupd.publish.member import APP_AGENT, TV_KEY, TV_SECRET, Member, Unsent, code_of, parsed, sign
from biliupd.publish.studio import MOST_PARTS, Part, edited

REFUSED_FOR_AN_EARLIER_ONE = (10009, 21012)  #: the file, the title, is in an archive already: perhaps our own
BROKEN_PART = 21015  #: "part N seems broken, upload it again"
_BVID = r"[0-9A-Za-z]{1,32}"
SAME_TITLE_SECONDS = 600.0  #: after a refusal for the title or the file of another archive
MAYBE_ACCEPTED = (-500, -503, -504, 20001)


def submit(member: Member, body: Mapping[str, Any]) -> Submitted:
    """Send a new submission, once; `body` is that of `studio`.

    Raises UnknownOutcome when it may have been accepted, so that it must be looked up before anything else; every
    other error (NeedsPerson, TemporaryError, PermanentError) means that it was not.
    """
    return _send(member, "submit", "app/add", "web/add/v3", body)


def whole(member: Member, vid: str, expected: Collection[str] = ()) -> dict[str, Any]:
    """The view of a submission, fit to be edited: what is not in it would be taken out. Raises TemporaryError when it
    lacks `expected` files and so is older than what Bilibili accepted."""
    content = view(member, vid)
    if missing := len(set(expected) - _files(content)):
        raise TemporaryError(f"{vid} is not seen with all its parts yet: an edit now would take {missing} out",
                             retry_after_seconds=30)
    return content


def append(
    member: Member, vid: str, parts: Sequence[Part], submitted: Mapping[str, Any], order: Sequence[str] = (),
    expected: Collection[str] = (),
) -> Submitted:  # fmt: skip
    """Put parts at the end of a submission, keeping everything else; those it has already are not sent again.

    `order` names files in the order they shall have; others stay before them. `submitted` is the body it was submitted
    with, if it is ours (see `studio.edited`); `expected` as for `whole`. Safe to repeat: after an UnknownOutcome the
    next call finds out by itself.
    """
    content = whole(member, vid, expected)
    archive, had = content["archive"], _files(content)
    done = Submitted(int(archive["aid"]), str(archive.get("bvid") or vid))
    if not (new := [part for part in parts if part.filename not in had]):
        return done
    if len(had) + len(new) > MOST_PARTS:
        raise PermanentError(
            f"{vid} has {len(had)} parts; with {len(new)} more it would have more than the {MOST_PARTS} Bilibili takes",
            hint="submit them as a further submission")
    _send(member, "append", "app/edit/full", "web/edit", edited(content, new, submitted, order))
    return done


def _files(content: Mapping[str, Any]) -> set[str]:
    return {str(video["filename"]) for video in content["videos"] or []}


def broken_part(error: BiliupdError, count: int) -> int | None:
    """Which of `count` parts a refusal wants uploaded again, from 1; 0: it does not say which; None: it wants none."""
    if error.code != BROKEN_PART:
        return None
    named = [int(number) for number in re.findall(r"(?<![0-9])[0-9]{1,3}(?![0-9])", str(error))]
    numbers = {number for number in named if number != BROKEN_PART and 1 <= number <= count}
    return numbers.pop() if len(numbers) == 1 else 0


def _send(member: Member, what: str, app: str, web: str, body: Mapping[str, Any]) -> Submitted:
    publish = member.publish
    if publish.submit == "app":
        address = f"{publish.member_url}/x/vu/{app}?{urlencode(_app_fields(member.token()))}"
        options: dict[str, Any] = {"cookies": False, "agent": APP_AGENT}
    else:
        csrf = member.credential.csrf
        address = f"{publish.member_url}/x/vu/{web}?{urlencode({'t': time.time_ns() // 10**6, 'csrf': csrf})}"
        body, options = {**body, "csrf": csrf}, {}
    try:  # on a connection of its own: an old one may be dead, and then nobody knows what was read from it
        response = member.send("POST", address, what=what, json=body, fresh=True, **options)
    except Unsent:
        raise
    except TemporaryError as error:
        raise UnknownOutcome(f"{error}; it may have been accepted") from error.__cause__
    return _outcome(member, response, what)


def _outcome(member: Member, response: requests.Response, what: str) -> Submitted:
    answer = parsed(response)
    code = code_of(answer)
    if code == 0 and isinstance(answer.get("data"), dict):
        aid, bvid = answer["data"].get("aid"), answer["data"].get("bvid")
        if isinstance(aid, int) and 0 < aid < 2**63 and isinstance(bvid, str) and re.fullmatch(_BVID, bvid):
            return Submitted(aid, bvid)
    refusal = member.refusal(response, answer, what)
    if code in REFUSED_FOR_AN_EARLIER_ONE:
        raise UnknownOutcome(f"{refusal}; an earlier one may have been accepted", refused=True)
    intercepted = response.status_code in (412, 429)
    if code in MAYBE_ACCEPTED or response.status_code >= 500 or (code in (None, 0) and not intercepted):
        raise UnknownOutcome(f"{refusal}; it may have been accepted")
    raise refusal


def _app_fields(token: str) -> dict[str, str]:
    return sign({
        "access_key": token, "appkey": TV_KEY, "build": "7800300", "c_locale": "zh-Hans_CN", "channel": "bili",
        "disable_rcmd": "0", "mobi_app": "android", "platform": "android", "s_locale": "zh-Hans_CN",
        "statistics": '"appId":1,"platform":3,"version":"7.80.0","abtest":""', "ts": str(int(time.time()))}, TV_SECRET)
