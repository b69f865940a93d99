// Builds the page into a folder: one script, one stylesheet, one document. The same source makes the same bytes.
import { build } from "esbuild";
import { copyFile } from "node:fs/promises";
import { join } from "node:path";

const [folder] = process.argv.slice(2);
if (!folder) throw new Error("node build.mjs FOLDER");

await build({
  entryPoints: [
    { in: "main.tsx", out: "console" },
    { in: "console.css", out: "console" },
  ],
  outdir: folder,
  bundle: true,
  minify: true,
  format: "iife",
  target: "es2022",
  charset: "ascii",
  legalComments: "none",
  logLevel: "warning",
});
await copyFile("index.html", join(folder, "index.html"));
