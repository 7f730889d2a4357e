// Version 1 of the TypeScript SDK, which most programs use: `@modelcontextprotocol/sdk` 1.x.

import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { ElicitRequestSchema } from "@modelcontextprotocol/sdk/types.js";

import { serve } from "./lines.mjs";

await serve(async ({ url, bearer, command, args, env, answer }) => {
  const transport = url
    ? new StreamableHTTPClientTransport(new URL(url), { requestInit: { headers: { Authorization: `Bearer ${bearer}` } } })
    : new StdioClientTransport({ command, args, env });
  const capabilities = answer ? { elicitation: {} } : {};
  const client = new Client({ name: "interop", version: "1.0.0" }, { capabilities });
  if (answer) client.setRequestHandler(ElicitRequestSchema, async () => answer);
  await client.connect(transport);
  client.getNegotiatedProtocolVersion = () => transport.protocolVersion;
  return client;
});
