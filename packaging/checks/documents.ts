// Checks that every path which a document names is there.

import { sources } from "./modules.ts";

/** A path of this project in backticks: below one of its folders, or a file at its top. */
const NAMED =
  /`((?:\.ci|docs|examples|ffi|mod|packaging|tests)\/[\w./-]*|(?:main|libshim)\.\w+|[A-Z]+\.md|deno\.(?:json|lock))`/g;
/** The target of a link, without its fragment. */
const LINKED = /\]\((?!https?:|mailto:|#)([^)#\s]+)/g;

/** All paths in the documents of a checkout at which there is nothing. */
export function checkDocuments(root: string): string[] {
  const exists = (path: string) => {
    try {
      return Boolean(Deno.statSync(path));
    } catch {
      return false;
    }
  };
  const top = [...Deno.readDirSync(root)].map(({ name }) => name).filter((name) => name.endsWith(".md"));
  return [...top.sort(), ...sources(root, ["docs"], ".md")].flatMap((document) => {
    const text = Deno.readTextFileSync(`${root}/${document}`);
    const folder = document.includes("/") ? `${root}/${document.replace(/\/[^/]*$/, "")}` : root;
    return [
      ...[...text.matchAll(NAMED)].map(([, path]) => [path!, `${root}/${path}`] as const),
      ...[...text.matchAll(LINKED)].map(([, path]) => [path!, `${folder}/${path}`] as const),
    ].filter(([, path]) => !exists(path)).map(([path]) => `${document} names ${path}, which is not there`);
  });
}
