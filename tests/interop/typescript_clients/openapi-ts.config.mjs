// The configuration of `@hey-api/openapi-ts`: a client that checks requests and responses with zod.

export default {
  input: "openapi.json",
  output: { path: "hey_api", module: { extension: ".js" } },
  logs: { file: false },
  plugins: ["@hey-api/client-fetch", "@hey-api/typescript", "zod", { name: "@hey-api/sdk", validator: true }],
};
