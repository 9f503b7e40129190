// Bundles NiiVue into one script for `calid view`, with the licences of what is in it.
//
//   cd viewer && npm ci && npm run build
//
// Versions are pinned in package-lock.json. What is written to ../src/calid/view/static is
// committed, so that nobody needs npm to install or use the package.
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const out = join(here, "..", "src", "calid", "view", "static");
const script = "niivue.min.js";

const { metafile } = await build({
  stdin: {
    contents: 'export { Niivue, NVImage } from "@niivue/niivue";',
    resolveDir: here,
  },
  alias: { zarrita: join(here, "no-zarr.cjs") },
  bundle: true,
  format: "iife",
  globalName: "niivue",
  legalComments: "none",
  logLevel: "warning",
  metafile: true,
  minify: true,
  outfile: join(out, script),
  target: "es2022",
});

// Every package that gave at least one byte to the bundle.
const [{ inputs }] = Object.values(metafile.outputs);
const packages = new Set();
for (const [path, { bytesInOutput }] of Object.entries(inputs)) {
  const name = path.match(/.*node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
  if (name && bytesInOutput > 0) packages.add(name);
}

const notices = [...packages].sort().map((name) => {
  const folder = join(here, "node_modules", name);
  const { version, license } = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
  const file = readdirSync(folder).find((entry) => /^licen[cs]e/i.test(entry));
  // Some packages name a licence and carry no text; theirs is kept beside this file.
  const kept = join(here, "licences", `${name.replaceAll("/", "+")}.txt`);
  const source = file ? join(folder, file) : existsSync(kept) ? kept : null;
  if (!source) throw new Error(`${name} ${version} (${license}) comes without a licence text`);
  const text = readFileSync(source, "utf8").replace(/\r/g, "").trim();
  return { name, version, license, text };
});

notices.push({
  name: "Roboto",
  version: "Regular",
  license: "Apache-2.0",
  text: readFileSync(join(here, "licences", "Roboto.txt"), "utf8").trim(),
});

const rule = "=".repeat(78);
writeFileSync(
  join(out, "THIRD_PARTY_LICENCES.txt"),
  `${script} is made of the packages below.\n` +
    notices
      .map(({ name, version, license, text }) => `\n${rule}\n${name} ${version} (${license})\n${rule}\n\n${text}\n`)
      .join(""),
);
writeFileSync(
  join(out, "bundle.json"),
  JSON.stringify(
    {
      script,
      sha256: createHash("sha256").update(readFileSync(join(out, script))).digest("hex"),
      packages: Object.fromEntries(notices.map(({ name, version, license }) => [name, { version, license }])),
    },
    null,
    2,
  ) + "\n",
);
