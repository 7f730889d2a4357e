// Version 2 of the TypeScript SDK, `@modelcontextprotocol/client` 2.x, which supports both eras of the protocol.

import { Client, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";

import { serve } from "./lines.mjs";

await serve(async ({ url, bearer, command, args, env, era, answer }) => {
  const transport = url
    ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${bearer}` } } })
    : new StdioClientTransport({ command, args, env });
  const mode = era === "modern" ? { pin: "2026-07-28" } : era;
  const capabilities = answer ? { elicitation: { form: {} } } : {};
  const client = new Client({ name: "interop", version: "1.0.0" }, { capabilities, versionNegotiation: { mode } });
  if (answer) client.setRequestHandler("elicitation/create", async () => answer);
  await client.connect(transport);
  return client;
});
