# Reads /etc/resolv.conf again and again until a file "stop" appears beside the word given; then tells what was seen, as
# JSON: kinds in order ("own", "host", "none"), and for how long the host's file was seen at most, in milliseconds.
import json, os, sys, time

directory = sys.argv[1]
seen, longest, since = [], 0.0, None
print("ready", flush=True)
while not os.path.exists(directory + "/stop"):
    try:
        with open("/etc/resolv.conf") as file:
            text = file.read()
    except FileNotFoundError:
        text = None
    kind = "none" if text is None else "host" if "203.0.113." in text else "own"
    now = time.monotonic()
    if kind == "host":
        since = since or now
        longest = max(longest, now - since)
    else:
        since = None
    if not seen or seen[-1] != kind:
        seen.append(kind)
try:
    with open("/etc/resolv.conf") as file:
        text = file.read()
except FileNotFoundError:
    text = None
print(json.dumps({"seen": seen, "longest": longest * 1000, "text": text}))
