"""Upload one file with biliupd: `python ours.py COOKIES.json FILE`."""

import sys
import threading
from pathlib import Path

from biliupd.config import PublishConfig
from biliupd.publish.credential import Credential
from biliupd.publish.line import named
from biliupd.publish.member import Member
from biliupd.publish.upos import upload


def main() -> None:
    member = Member(PublishConfig(line="tx", submit="web"), Credential.load(Path(sys.argv[1])))
    member.whoami()
    upload(Path(sys.argv[2]), member, [named("tx")], stop=threading.Event())


if __name__ == "__main__":
    main()
