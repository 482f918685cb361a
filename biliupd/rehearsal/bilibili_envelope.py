"""How the stand-in Bilibili says yes and no, and whom it believes a signature of. Pure."""

import hashlib
import time
from typing import Any, NoReturn
from urllib.parse import parse_qsl, quote_plus

from biliupd.rehearsal.bilibili_wire import Answer, Refused

APP_SECRETS = {
    "4409e2ce8ffd12b8": "59b43e04ad6965f34319062b478f83dd",  # TV
    "783bbb7264451d82": "2653583c8873dea268ab9386918b1d65",  # Android
    "5dce947fe22167f9": "5491a31c6bc11fb764a9b1f8d4acf092",  # BCut
    "1d8b6e7d45233436": "560c52ccd288fed045859ed18bffd973",  # the one of the published test vector
}
MESSAGES = {
    -3: "API校验密匙错误", -101: "账号未登录", -105: "验证码错误", -111: "csrf 校验失败", -400: "请求错误",
    -403: "访问权限不足", -404: "啥都木有", -629: "账号或密码错误", -653: "用户名或密码不能为空",
    -662: "密码已过期，请重新获取", 1002: "手机号格式错误", 1003: "验证码已经发送", 1006: "请输入正确的短信验证码",
    1007: "短信验证码已过期", 2406: "验证极验服务出错",
    10003: "不存在该稿件", 10009: "该文件名暂时不能用于其它稿件", 20042: "标签有误，请检查标签",
    21005: "标签数量须为1到12个，每个不超过20字", 21012: "请勿短时间内重复提交同名稿件", 21058: "一次最多投递100个分P",
    21070: "投稿过于频繁，请等待30秒后再试", 21103: "标题须在80字以内", 86000: "RSA解密失败", 86038: "二维码已失效",
    86039: "二维码尚未确认", 86090: "二维码已扫码未确认", 86095: "refresh_token 与 csrf 不匹配",
    86203: "短信发送次数已达上限",
}
CLOCK_SECONDS = 600


def fine(content: Any = None) -> Answer:
    """Bilibili's envelope around a success."""
    return Answer.json({"code": 0, "message": "0", "ttl": 1, "data": content})


def refuse(code: int, message: str = "", content: Any = None) -> NoReturn:
    """Answer with Bilibili's envelope around a refusal: HTTP 200 all the same."""
    raise Refused(Answer.json(
        {"code": code, "message": message or MESSAGES.get(code, str(code)), "ttl": 1, "data": content}))


def signed(text: str) -> dict[str, str]:
    """The parameters of a form-urlencoded text whose `sign` is right; refuses with -3 otherwise (§1.1)."""
    pairs = dict(parse_qsl(text, keep_blank_values=True))
    secret = APP_SECRETS.get(pairs.get("appkey", ""))
    raw = sorted(piece for piece in text.split("&") if not piece.startswith("sign="))
    encoded = [f"{quote_plus(name)}={quote_plus(pairs[name])}" for name in sorted(pairs) if name != "sign"]
    right = {hashlib.md5(("&".join(pieces) + (secret or "")).encode()).hexdigest() for pieces in (raw, encoded)}
    if not secret or pairs.get("sign") not in right:
        refuse(-3)
    if not pairs.get("ts", "").isdecimal() or abs(int(pairs["ts"]) - time.time()) > CLOCK_SECONDS:
        refuse(-3, "ts 与服务器时间相差过大")
    return pairs
