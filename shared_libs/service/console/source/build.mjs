// Builds the page, and what draws a run in a file of its own, into two folders. The same source makes the same bytes.
import { build } from "esbuild";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";

const [page, trace] = process.argv.slice(2);
if (!trace) throw new Error("node build.mjs PAGE_FOLDER TRACE_FOLDER");

const bundle = (outdir, script, name) =>
  build({
    entryPoints: [
      { in: script, out: name },
      { in: "console.css", out: name },
    ],
    outdir,
    bundle: true,
    minify: true,
    format: "iife",
    target: "es2022",
    charset: "ascii",
    legalComments: "none",
    logLevel: "warning",
  });
await bundle(page, "main.tsx", "console");
await bundle(trace, "trace.tsx", "trace");
await copyFile("index.html", join(page, "index.html"));
