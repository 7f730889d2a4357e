// Accumulates event streams with OpenAI's SDK for JavaScript. Usage: accumulate.mjs PACKAGE, with a list of streams as JSON on stdin.
const { default: OpenAI } = await import(process.argv[2]);

let input = "";
for await (const chunk of process.stdin) input += chunk;
const responses = [];
for (const stream of JSON.parse(input)) responses.push(await accumulated(stream));
process.stdout.write(JSON.stringify(responses));

async function accumulated(stream) {
  const headers = { "content-type": "text/event-stream" };
  const client = new OpenAI({ apiKey: "key", fetch: async () => new Response(stream, { headers }) });
  const response = await client.responses.stream({ model: "latchkey", input: "Hello" }).finalResponse();
  return JSON.parse(JSON.stringify(response, (key, value) => (key.endsWith("parsed") ? undefined : value)));
}
