// The style sheet of a picture, which also does the zoom.

/** The factors of the zoom. */
export const ZOOMS = [1, 2, 4, 16, 64, 256] as const;

const COLOURS = {
  user: "#c9b3e6",
  mnt: "#a8d5a2",
  pid: "#f4b6b6",
  ipc: "#d9c8a9",
  uts: "#f3d98b",
  net: "#9cc7ee",
  cgroup: "#b9dbd5",
  time: "#e6bcd8",
  process: "#d4d9e0",
  note: "#ffcf70",
  many: "#4a6a94",
} as const;

/** The style sheet. */
export const STYLE = `
body{font:13px/1.35 system-ui,sans-serif;margin:1em;color:#111;background:#fff;--z:1}
h1{font-size:1.3em;margin:0 0 .3em}p{margin:.2em 0}
fieldset{border:0;padding:0;margin:.3em 0}legend{float:left;padding:0 .6em 0 0}
.lanes{overflow-x:auto;border:1px solid #bbb;max-height:calc(100vh - 9em);overflow-y:auto}
.row{display:flex;height:1.6em;width:max-content;content-visibility:auto;contain-intrinsic-height:1.6em}
.label{position:sticky;left:0;z-index:3;width:15em;box-sizing:border-box;background:#f6f7f9;border-right:1px solid #bbb;
padding:.1em .3em;white-space:nowrap;overflow:hidden;text-overflow:ellipsis;flex:none}
.track{position:relative;width:calc((100vw - 21em)*var(--z));flex:none;border-bottom:1px solid #eee;overflow:hidden}
.bar{position:absolute;top:.2em;bottom:.2em;min-width:3px;border-radius:3px;box-sizing:border-box;border:1px solid #0003}
.before{border-left:0;border-radius:0 3px 3px 0}.after{border-right:0;border-radius:3px 0 0 3px}
.track b{position:absolute;top:.1em;transform:translateX(-50%);font-weight:400;background:none;z-index:1;cursor:default}
.words{position:absolute;top:.1em;white-space:nowrap;z-index:2;text-shadow:0 0 3px #fff,0 0 3px #fff}
.axis{position:sticky;top:0;z-index:4;background:#fff}.axis .track{overflow:visible;background:#fff}
.tick{position:absolute;z-index:1;padding-left:.2em;border-left:1px solid #888;white-space:nowrap}
.pause{position:absolute;top:0;bottom:0;background:repeating-linear-gradient(45deg,#bbb 0 3px,#fff 3px 7px);opacity:.5;z-index:0}
details{border-top:1px solid #ddd}summary{position:sticky;left:0;width:max-content;padding:.2em .4em;font-weight:600;cursor:pointer}
.group summary{font-weight:400;padding-left:1.5em}details[open]+.overview{display:none}.many{border:0;border-radius:0}
.key{padding:.1em .5em;border-radius:3px}
${Object.entries(COLOURS).map(([name, colour]) => `.bar.${name},.key.${name}{background:${colour}}`).join("\n")}
${ZOOMS.map((zoom) => `body:has(#z${zoom}:checked){--z:${zoom}}`).join("\n")}
`;
