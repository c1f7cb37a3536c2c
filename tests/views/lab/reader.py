# Reads /etc/resolv.conf again and again until a file "stop" appears in the directory given; then tells what was seen, as
# JSON: kinds in order ("own", "host", "none"), and the text at the end. Whenever a file "ask" appears there, it is removed
# once what it was asked has been read anew and is in the file "now": the kind, and the text.
import json, os, sys

directory = sys.argv[1]
seen = []


def read():
    try:
        with open("/etc/resolv.conf") as file:
            text = file.read()
    except FileNotFoundError:
        return "none", None
    return "host" if "203.0.113." in text else "own", text


print("ready", flush=True)
while not os.path.exists(directory + "/stop"):
    asked = os.path.exists(directory + "/ask")
    kind, text = read()
    if not seen or seen[-1] != kind:
        seen.append(kind)
    if asked:
        with open(directory + "/now", "w") as file:
            file.write(f"{kind} {text}")
        os.remove(directory + "/ask")
print(json.dumps({"seen": seen, "text": read()[1]}))
