/** What the daemon says of its catalog. How a sentence is written here: see ../daemon.zh.js. */

export default {
  "{=said} Read it? Then remove {path}": "{said}已阅读？请删除 {path}",
  "{at}Z: {path}: {=why}. It is kept as {aside}. {=what}; what was published since then is looked up at Bilibili before anything is sent.":
    "{at} UTC：{path}：{why}，已保留为 {aside}。{what}；此后发布的内容会先在哔哩哔哩查询再投稿。",
  "{at}Z: {path}: {=why}. {=what}; what was published since then is looked up at Bilibili before anything is sent.":
    "{at} UTC：{path}：{why}。{what}；此后发布的内容会先在哔哩哔哩查询再投稿。",
  "{at}Z: {path}: {=why}. It is kept as {aside}. There was no good copy, so the library is made anew from the folders; what is older is looked up at Bilibili before anything is sent.":
    "{at} UTC：{path}：{why}，已保留为 {aside}。没有可用的备份，录像库已根据文件夹重建；更早的内容会先在哔哩哔哩查询再投稿。",
  "{at}Z: {path}: {=why}. There was no good copy, so the library is made anew from the folders; what is older is looked up at Bilibili before anything is sent.":
    "{at} UTC：{path}：{why}。没有可用的备份，录像库已根据文件夹重建；更早的内容会先在哔哩哔哩查询再投稿。",
  "{at}Z: {path} is a copy that somebody put there; what was published since then is looked up at Bilibili before anything is sent.":
    "{at} UTC：{path} 是放入的备份；此后发布的内容会先在哔哩哔哩查询再投稿。",
  "{=why}; it cannot be mended: {=trouble}": "{why}，且无法修复：{trouble}",
  "make room, or write there": "请腾出空间，或确保可写",
  "it was gone": "数据库文件丢失",
  "the file was empty": "数据库文件为空",
  "it was damaged ({why})": "数据库已损坏（{why}）",
  "The copy {path} of {at} UTC took its place": "已用备份 {path}（{at} UTC）恢复",
  "There was no good copy, so it was made anew of what could be read ({#n} gaps)": "没有可用的备份，已用可读取的内容重建（缺失 {n} 处）",
  "{path} cannot be made anew: {=why}": "无法重建 {path}：{why}",
  "the catalog was restored: perhaps it was sent before": "数据库曾经恢复：此前可能已投稿",
  "another process keeps it locked": "被另一个进程锁定",
  "end the program that has it open": "请结束打开它的程序",
  "the disk is full": "磁盘空间不足",
  "it is read-only": "只读",
  "let the user that biliupd runs as write to the file and its folder": "请让运行 biliupd 的用户可以写入该文件及其目录",
  "it cannot be opened": "无法打开",
  "let the user that biliupd runs as use the file and its folder": "请让运行 biliupd 的用户可以使用该文件及其目录",
  "the disk reports an error": "磁盘出错",
  "look at the disk: the kernel's log says more": "请检查磁盘，详情见内核日志",
  "{path} is damaged: {why}": "{path} 已损坏：{why}",
  "start the daemon anew: it takes the newest good copy in backups/; or biliupd rebuild":
    "请重启 biliupd，会自动使用 backups/ 中最新的可用备份；或运行 biliupd rebuild",
  "{path} was deleted or replaced": "{path} 被删除或替换",
  "the catalog cannot be used: {path}: {=why} ({detail})": "数据库无法使用：{path}：{why}（{detail}）",
  "the catalog cannot be written: {path}: {=why}": "数据库无法写入：{path}：{why}",
  "the catalog cannot be written: {path}: {=why} ({detail})": "数据库无法写入：{path}：{why}（{detail}）",
  "{path} was written by a newer biliupd (it knows {names})": "{path} 由更新版本的 biliupd 写入（含 {names}）",
  "install that version again; the file was not touched": "请重新安装该版本；文件未被改动",
  "{path} exists already": "{path} 已存在",
  "name another file, or remove it": "请换一个文件名，或删除该文件",
  "there is no catalog {path} yet": "还没有数据库 {path}",
  "biliupd run makes it": "biliupd run 会创建",
  "no copy {path}: {=why}": "无法备份到 {path}：{why}",
  "no copy of {path}: {part}: {=why}": "无法备份 {path}：{part}：{why}",
  "name a file in a folder you may write to": "请指定可写目录中的文件",
  "today's copy of the catalog failed: {=why}": "今天的数据库备份失败：{why}",
  "the catalog lies on a network file system ({kind}): it works, but slowly, and no other machine may use it; better set recordings.data_directory to a local disk":
    "数据库位于网络文件系统（{kind}）：可以工作但较慢，且其他机器不得同时使用；建议将 recordings.data_directory 设到本地磁盘",
  "same as {name} ({original}); biliupd retry video:{#id} publishes it, too": "与{name}相同（{original}）；biliupd retry video:{id} 可将其也投稿",
  "its file changed after it was uploaded; biliupd retry video:{#id} publishes the new version, too":
    "文件在上传后有改动；biliupd retry video:{id} 可将新版本也投稿",
  "its file changed after it was uploaded as {bvid}; biliupd retry video:{#id} publishes the new version, too":
    "文件在投稿为 {bvid} 后有改动；biliupd retry video:{id} 可将新版本也投稿",
  "a segment of {name}": "{name} 的分片",
  "a fragment of {~n} s; biliupd retry publishes it": "仅{n}的片段，重试即可投稿",
};
