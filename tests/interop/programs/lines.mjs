// How a test drives a client that lives in another process: a command a line in, its answer a line out.

import { createInterface } from "node:readline";

const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

/** Connect to the door that the environment describes, then do as told until standard input ends. */
export async function serve(connect) {
  let client;
  try {
    client = await connect(JSON.parse(process.env.DOOR));
    say({ ok: client.getNegotiatedProtocolVersion?.() ?? null });
  } catch (error) {
    say({ refused: String(error.message ?? error) });
    process.exit(0);
  }
  for await (const line of createInterface({ input: process.stdin })) {
    const { command, ...given } = JSON.parse(line);
    try {
      say({ ok: await COMMANDS[command](client, given) });
    } catch (error) {
      say({ refused: String(error.message ?? error) });
    }
  }
  await client.close();
  process.exit(0);
}

const COMMANDS = {
  tools: async (client) => (await pages((page) => client.listTools(page), "tools")).map((tool) => tool.name),
  resources: async (client) => (await pages((page) => client.listResources(page), "resources")).map((one) => one.uri),
  read: async (client, { uri }) => (await client.readResource({ uri })).contents[0].text,
  call: async (client, { name, arguments: given }) => {
    const { content, structuredContent, isError } = await client.callTool({ name, arguments: given });
    return { content: structuredContent ?? null, text: content[0].text, is_error: Boolean(isError) };
  },
};

async function pages(list, noun) {
  const found = [];
  let cursor;
  do {
    const page = await list(cursor === undefined ? {} : { cursor });
    found.push(...page[noun]);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  return found;
}
