// What programs inside are answered when they configure the interface themselves: loaded when the first one asks.

export { answerDhcp } from "./dhcp.ts";
export { answerDhcp6 } from "./dhcp6.ts";
export { advertise } from "./advertisement.ts";
