// Mastra's MCP client, `@mastra/mcp` 2.x. It makes a Mastra tool of each listed tool, and validates arguments and results with its schemas.

import { getMcpCallToolContent, MCPClient } from "@mastra/mcp";

import { serve } from "./lines.mjs";

const SERVER = "latchkey";
const PROTOCOL_VERSIONS = { legacy: "legacy", modern: "2026-07-28" };

await serve(async ({ url, bearer, command, args, env, era }) => {
  const connection = url
    ? { url: new URL(url), requestInit: { headers: { Authorization: `Bearer ${bearer}` } } }
    : { command, args, env };
  const options = { protocolVersion: PROTOCOL_VERSIONS[era], onToolError: "return" };
  const client = new MCPClient({ servers: { [SERVER]: { ...connection, ...options } } });
  const { toolsets, errors } = await client.listToolsetsWithErrors();
  if (errors[SERVER]) throw new Error(errors[SERVER]);
  const tools = toolsets[SERVER];

  return {
    close: () => client.disconnect(),
    listTools: async () => ({ tools: Object.keys(tools).map((name) => ({ name })) }),
    listResources: async () => ({ resources: (await client.resources.list())[SERVER] }),
    readResource: ({ uri }) => client.resources.read(SERVER, uri),
    callTool: async ({ name, arguments: options }) => {
      if (!tools[name]) throw new Error(`Mastra has no tool ${name}.`);
      const result = await tools[name].execute(options);
      const content = getMcpCallToolContent(result);
      return content ? { content, structuredContent: result } : result;
    },
  };
});
