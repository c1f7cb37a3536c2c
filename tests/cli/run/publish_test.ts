// `--publish` means what the same port means in the words of --tcp-ports and --udp-ports.

import { assertEquals, assertThrows } from "@std/assert";
import { SPEC } from "../../../mod/cli/run.ts";
import { portRequest } from "../../../mod/cli/options/ports.ts";
import { parseOptions } from "../../../mod/cli/options/table.ts";
import { test } from "../../lib/helpers.ts";

const request = (...words: string[]) => portRequest(parseOptions(SPEC, words), undefined);

test("a published port is a port of the host that leads inside", () => {
  const same: Record<string, string[]> = {
    "8080": ["-t", "8080"],
    "8080:80": ["-t", "8080:80"],
    "8080:80/tcp": ["-t", "8080:80"],
    "5353:53/udp": ["-u", "5353:53"],
    "5353:53/UDP": ["-u", "5353:53"],
    "8000-8010": ["-t", "8000-8010"],
    "8000-8010:9000-9010/udp": ["-u", "8000-8010:9000-9010"],
    "127.0.0.1:8080:80": ["-t", "127.0.0.1/8080:80"],
    "127.0.0.1:8080": ["-t", "127.0.0.1/8080"],
    "[::1]:8080:80": ["-t", "[::1]/8080:80"],
    "0.0.0.0:53:53/udp": ["-u", "0.0.0.0/53"],
  };
  for (const [value, words] of Object.entries(same)) {
    assertEquals(request("--publish", value), request(...words), value);
  }
  assertEquals(
    request("--publish", "8080:80", "--publish", "8081:81/udp", "-t", "90"),
    request("-t", "90", "-t", "8080:80", "-u", "8081:81"),
  );
});

test("an error of a published port quotes what was written", () => {
  const wrong: Record<string, RegExp> = {
    "": /use --publish "": it is not \[ADDRESS:\]PORT/,
    "80:81:82": /use --publish "80:81:82": it is not/,
    "8080:http": /it is not \[ADDRESS:\]PORT/,
    "8080/80": /it is not \[ADDRESS:\]PORT/,
    "8080:80/sctp": /it is not \[ADDRESS:\]PORT/,
    "::1:8080:80": /it is not \[ADDRESS:\]PORT/,
    "localhost:8080:80": /use --publish "localhost:8080:80": it is not a list of ports/,
    "99999": /use --publish "99999": it is not a list of ports/,
    "8000-8010:9000-9001": /use --publish "8000-8010:9000-9001": it is not a list of ports/,
    "8080:0": /use --publish "8080:0"/,
  };
  for (const [value, message] of Object.entries(wrong)) {
    const error = assertThrows(() => request("--publish", value), Error);
    assertEquals(message.test(error.message), true, `${value}: ${error.message}`);
  }
});
