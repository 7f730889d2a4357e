// Controls a client in another process: reads one command per line and writes one reply per line.

import { createInterface } from "node:readline";

const reply = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** Connect to the endpoint in the environment, then execute commands until standard input ends. */
export async function serve(connect) {
  let client;
  try {
    client = await connect(JSON.parse(process.env.ENDPOINT));
    reply({ ok: client.getNegotiatedProtocolVersion?.() ?? null });
  } catch (error) {
    reply({ refused: String(error.message ?? error) });
    process.exit(0);
  }
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...options } = JSON.parse(line);
    try {
      reply({ ok: await COMMANDS[command](client, options) });
    } catch (error) {
      reply({ refused: String(error.message ?? error) });
    }
  }
  await client.close();
  process.exit(0);
}

const COMMANDS = {
  tools: async (client) => (await pages((page) => client.listTools(page), "tools")).map((tool) => tool.name),
  resources: async (client) => (await pages((page) => client.listResources(page), "resources")).map((one) => one.uri),
  read: async (client, { uri }) => (await client.readResource({ uri })).contents[0].text,
  call: async (client, { name, arguments: options }) => {
    const { content, structuredContent, isError } = await client.callTool({ name, arguments: options });
    return { content: structuredContent ?? null, text: content[0].text, is_error: Boolean(isError) };
  },
};

async function pages(list, noun) {
  const items = [];
  let cursor;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    items.push(...page[noun]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return items;
}
