// Holds the arrays of `variants.py` to what zarrita.js reads. `run.py` copies it next to the packages that it imports.
// Prints a line each; the exit status is 0 if all hold.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";

import { FileSystemStore } from "@zarrita/storage";
import * as zarr from "zarrita";

const folder = process.env.VARIANTS_FOLDER;
const expected = JSON.parse(readFileSync(join(folder, "expected.json")));

let failures = 0;
for (const [name, { version, arrays, kind }] of Object.entries(expected)) {
  const start = performance.now();
  let failure = "";
  try {
    const root = zarr.root(new FileSystemStore(join(folder, name)));
    const kindOf = version === "0.4" ? "v2" : "v3";
    const { attrs } = await zarr.open[kindOf](root, { kind: "group" });
    const ome = version === "0.4" ? attrs : attrs.ome;
    const key = kind === "sections" ? "bioformats2raw.layout" : "multiscales";
    if (!(key in ome)) throw new Error(`no ${key} in ${JSON.stringify(ome)}`);
    for (const [path, { shape, dtype, sha256 }] of Object.entries(arrays)) {
      const array = await zarr.open[kindOf](root.resolve(path), { kind: "array" });
      const { data } = await zarr.get(array);
      const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
      const found = `${array.shape}; ${array.dtype}; ${createHash("sha256").update(bytes).digest("hex")}`;
      const wanted = `${shape}; ${dtype}; ${sha256}`;
      if (found !== wanted) throw new Error(`${path}: ${found}, not ${wanted}`);
    }
  } catch (error) {
    failure = error.stack ?? String(error);
    failures += 1;
  }
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  const sentence = `${Object.keys(arrays).length} arrays of ${name} are read`;
  console.log(`${failure ? "FAILED" : "ok    "}  zarrita   ${sentence}  (${seconds} s)`);
  if (failure) console.log(failure);
}
process.exit(failures ? 1 : 0);
