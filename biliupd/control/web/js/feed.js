/**
 * Gives a video element a stream piece by piece. Safari wants to know how long a thing is that it plays from an address;
 * what is fed to it by hand need have no end.
 */

const AHEAD_SECONDS = 30; // so much is kept ready; the rest stays at the other end
const BEHIND_SECONDS = 30;
const LONGEST_HEAD = 1 << 20; // bytes
const CODECS = { hvcC: "hvc1.1.6.L120.90", av1C: "av01.0.08M.08", mp4a: "mp4a.40.2", dOps: "opus" }; // by their boxes

const Source = globalThis.ManagedMediaSource ?? globalThis.MediaSource; // iPhones have only the former

/** Whether this browser can be fed at all. */
export const canFeed = Boolean(Source);

/** Play `address`, fragmented MP4, in `element` until `signal` is aborted. Rejects when it cannot be played. */
export async function feed(element, address, signal) {
  const source = new Source();
  const place = URL.createObjectURL(source);
  element.disableRemotePlayback = true; // else iPhones refuse
  element.src = place;
  try {
    await once(source, "sourceopen", signal);
    const answer = await fetch(address, { signal });
    if (!answer.ok) throw new Error(answer.statusText);
    const reader = answer.body.getReader();
    const head = await beginning(reader);
    const buffer = source.addSourceBuffer(typeOf(head));
    await taken(buffer, () => buffer.appendBuffer(head), signal);
    for (let begun = false; ; ) {
      if (!begun && buffer.buffered.length) {
        begun = true;
        const start = buffer.buffered.start(0); // a stream may begin a moment after zero
        if (start > element.currentTime) element.currentTime = start;
      }
      await room(element, buffer, signal);
      const { done, value } = await reader.read();
      if (done) break;
      await fill(element, buffer, value, signal);
    }
    source.endOfStream();
  } finally {
    URL.revokeObjectURL(place);
  }
}

const text = (bytes) => new TextDecoder("latin1").decode(bytes);

/** All that comes before the first fragment, and perhaps more: it says what the stream is made of. */
async function beginning(reader) {
  let head = new Uint8Array();
  while (!text(head).includes("moof") && head.length < LONGEST_HEAD) {
    const { done, value } = await reader.read();
    if (done) break;
    const longer = new Uint8Array(head.length + value.length);
    longer.set(head);
    longer.set(value, head.length);
    head = longer;
  }
  return head;
}

/** The type of a stream as RFC 6381 writes it, by the boxes of its head (ISO/IEC 14496-12 and -15). */
function typeOf(head) {
  const boxes = text(head);
  const profile = boxes.indexOf("avcC") + 5; // behind the name and a version: profile, constraints, level
  const h264 = [...head.subarray(profile, profile + 3)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  const codecs = Object.entries({ avcC: `avc1.${h264}`, ...CODECS }).filter(([box]) => boxes.includes(box));
  return `video/mp4; codecs="${codecs.map(([, codec]) => codec).join(", ")}"`;
}

/** Wait until more is of use, and let go of what was seen. */
async function room(element, buffer, signal) {
  const ahead = () => (buffer.buffered.length ? buffer.buffered.end(buffer.buffered.length - 1) - element.currentTime : 0);
  while (ahead() > AHEAD_SECONDS) await once(element, "timeupdate", signal);
  const seen = element.currentTime - BEHIND_SECONDS;
  if (seen > BEHIND_SECONDS && buffer.buffered.length && buffer.buffered.start(0) < seen - BEHIND_SECONDS) {
    await taken(buffer, () => buffer.remove(0, seen), signal);
  }
}

/** Give it a piece. A browser that has no room for so many bytes makes some once what it has was seen. */
async function fill(element, buffer, piece, signal) {
  for (;;) {
    try {
      return await taken(buffer, () => buffer.appendBuffer(piece), signal);
    } catch (error) {
      if (error.name !== "QuotaExceededError") throw error;
      await once(element, "timeupdate", signal);
    }
  }
}

function taken(buffer, change, signal) {
  change();
  return once(buffer, "updateend", signal);
}

function once(target, name, signal) {
  return new Promise((resolve, reject) => {
    signal.throwIfAborted();
    const stop = new AbortController();
    signal.addEventListener("abort", () => (stop.abort(), reject(signal.reason)), { signal: stop.signal });
    target.addEventListener("error", () => (stop.abort(), reject(new Error("it cannot be played"))), { signal: stop.signal });
    target.addEventListener(name, () => (stop.abort(), resolve()), { signal: stop.signal });
  });
}
