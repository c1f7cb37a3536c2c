// Prints what the survey of this host has found, as JSON.

import { survey } from "../../../mod/findings/survey/mod.ts";

console.log(JSON.stringify(survey()));
