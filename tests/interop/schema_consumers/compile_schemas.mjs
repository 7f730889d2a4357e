// Reads a JSON object of schemas by name, compiles each with every consumer, and writes the refusals and the number of compiled schemas.

import { readFileSync } from "node:fs";

import Ajv2020 from "ajv/dist/2020.js";
import addFormats from "ajv-formats";
import { fromJSONSchema } from "zod";
import { convertJsonSchemaToZod } from "zod-from-json-schema";

const consumers = {
  ajv: (schema) => addFormats(new Ajv2020({ unicodeRegExp: false, strict: true })).compile(schema),
  zod: fromJSONSchema,
  "zod-from-json-schema": convertJsonSchemaToZod,
};
const refusals = [];
let compiled = 0;
for (const [name, schema] of Object.entries(JSON.parse(readFileSync(0, "utf8")))) {
  for (const [consumer, compile] of Object.entries(consumers)) {
    try {
      compile(schema);
      compiled += 1;
    } catch (error) {
      refusals.push(`${consumer}: ${name}: ${error.message}`);
    }
  }
}
console.log(JSON.stringify({ refusals, compiled }));
