"""A client of the stand-in Bilibili that does everything right, for tests that then spoil one thing."""

import hashlib
import json
import time
from urllib.parse import urlencode

import requests

from biliupd.rehearsal.bilibili_envelope import APP_SECRETS

TV = "4409e2ce8ffd12b8"
CHUNK = 1000


class Client:
    """What a careful client sends; every test spoils one thing of it."""

    def __init__(self, server, cookies):
        content = json.loads(cookies.read_text())
        self.url = server.url
        self.cookies = {one["name"]: one["value"] for one in content["cookie_info"]["cookies"]}
        self.token = content["token_info"]["access_token"]
        self.refresh_token = content["token_info"]["refresh_token"]
        self.csrf = self.cookies["bili_jct"]
        self.header = {"Cookie": "; ".join(f"{name}={text}" for name, text in self.cookies.items())}

    def get(self, path, **options):
        return requests.get(self.url + path, **{"headers": self.header, "timeout": 5, **options})

    def post(self, path, **options):
        return requests.post(self.url + path, **{"headers": self.header, "timeout": 5, **options})

    def signed(self, **changes):
        fields = {"access_key": self.token, "appkey": TV, "ts": str(int(time.time())), **changes}
        fields = dict(sorted(fields.items()))
        return {**fields, "sign": hashlib.md5((urlencode(fields) + APP_SECRETS[TV]).encode()).hexdigest()}

    def preupload(self, size=None, **changes):
        query = {"r": "upos", "name": "a b.mp4", "profile": "ugcupos/bup", "size": size, **changes}
        return self.get("/preupload", params={name: text for name, text in query.items() if text is not None}).json()

    def begin(self, ticket):
        answer = requests.post(object_url(ticket), params={"uploads": "", "output": "json"}, headers=auth(ticket))
        assert answer.status_code == 200, answer.text
        return answer.json()["upload_id"]

    def put(self, ticket, upload_id, data, number, **changes):
        chunks, start = -(-len(data) // CHUNK), (number - 1) * CHUNK
        body = data[start:start + CHUNK]
        query = {"partNumber": number, "uploadId": upload_id, "chunk": number - 1, "chunks": chunks, "size": len(body),
                 "start": start, "end": start + len(body), "total": len(data), **changes}
        return requests.put(object_url(ticket), params=query, data=body, headers=auth(ticket))

    def complete(self, ticket, upload_id, parts=None):
        body = {} if parts is None else {"parts": [{"partNumber": number, "eTag": "etag"} for number in parts]}
        return requests.post(object_url(ticket), params={"uploadId": upload_id, "output": "json"}, json=body,
                             headers=auth(ticket))

    def upload(self, data=b"x" * 2500):
        ticket = self.preupload(len(data))
        upload_id = self.begin(ticket)
        for number in range(1, -(-len(data) // CHUNK) + 1):
            assert self.put(ticket, upload_id, data, number).text == "MULTIPART_PUT_SUCCESS"
        assert self.complete(ticket, upload_id).json()["OK"] == 1
        return name_of(ticket)

    def body(self, *filenames, **changes):
        return {"copyright": 1, "source": "", "tid": 171, "title": "标题", "tag": "直播", "desc": "", "dtime": None,
                "videos": [{"filename": name, "title": "P1", "desc": ""} for name in filenames], **changes}

    def edit(self, aid, *videos, **changes):
        """By the web; a video is a filename or an object."""
        body = self.body(aid=aid, **changes)
        body["videos"] = [video if isinstance(video, dict) else {"filename": video, "title": "P"} for video in videos]
        return self.post("/x/vu/web/edit", params={"csrf": self.csrf}, json=body).json()

    def view(self, bvid):
        return self.get("/x/vupre/web/archive/view", params={"bvid": bvid}).json()

    def submit(self, *filenames, **changes):
        return self.post("/x/vu/app/add", params=self.signed(), json=self.body(*filenames, **changes)).json()


def object_url(ticket):
    return f"http:{ticket['endpoint']}/{ticket['upos_uri'].removeprefix('upos://')}"


def auth(ticket):
    return {"X-Upos-Auth": ticket["auth"]}


def name_of(ticket):
    return ticket["upos_uri"].rsplit("/", 1)[1].removesuffix(".mp4")
