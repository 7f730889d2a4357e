// Scenarios with OpenAI's SDK for JavaScript. Usage: scenarios.mjs PACKAGE SCENARIO, with the service in SERVICE.
// A scenario returns what it received; `reached` signals the test that the model may go on.
import { createInterface } from "node:readline";

const [packageName, scenario] = process.argv.slice(2);
const service = JSON.parse(process.env.SERVICE);
const { default: OpenAI } = await import(packageName);

const requests = [];
const client = clientFor(service);
const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();

function clientFor({ url, user, token }, Client = OpenAI) {
  const fetchAndCount = (address, init) => {
    requests.push(`${init.method.toUpperCase()} ${new URL(address).pathname.split("/openai/v1")[1]}`);
    return fetch(address, init);
  };
  return new Client({ baseURL: `${url}/api/${user}/openai/v1`, apiKey: token, fetch: fetchAndCount });
}

async function reached(place) {
  process.stdout.write(`${JSON.stringify({ reached: place })}\n`);
  await lines.next();
}

async function all(iterable) {
  const items = [];
  for await (const item of iterable) items.push(item);
  return items;
}

async function failureOf(promise) {
  try {
    await promise;
  } catch (error) {
    return [error.constructor.name, error.status ?? null, error.code ?? null];
  }
  return null;
}

const summary = (response) => ({
  status: response.status,
  text: response.output_text,
  items: response.output.map((item) => [item.type, item.status]),
});
const types = (response) => response.output.map((item) => item.type);
const decisionOn = (request, approve) => ({ type: "mcp_approval_response", approval_request_id: request.id, approve });
const same = (left, right) => JSON.stringify(withoutParsed(left)) === JSON.stringify(withoutParsed(right));
const withoutParsed = (value) =>
  JSON.parse(JSON.stringify(value, (key, member) => (["parsed", "output_parsed", "output_text"].includes(key) ? undefined : member)));

const scenarios = {
  async text() {
    const response = await client.responses.create({ model: "gpt-5", input: "Hello" });
    return { ...summary(response), reloaded: same(response, await client.responses.retrieve(response.id)) };
  },

  async tool_calls() {
    const stream = client.responses.stream({ model: "latchkey", input: "Buy milk" });
    const deltas = [];
    stream.on("response.output_text.delta", (event) => deltas.push(event.delta));
    const response = await stream.finalResponse();
    const [, added, refused] = response.output;
    return {
      ...summary(response),
      deltas: deltas.join(""),
      added: [added.name, added.server_label, JSON.parse(added.arguments).title, JSON.parse(added.output).title],
      refused: JSON.parse(refused.error.content[0].text).code,
      reloaded: same(response, await client.responses.retrieve(response.id)),
    };
  },

  async artifact() {
    const metadata = { artifact_generation: "true" };
    const response = await client.responses.create({ model: "latchkey", input: "Write a plan", metadata });
    return { ...summary(response), title: JSON.parse(response.output[0].output).title };
  },

  async two_turns() {
    const conversation = await client.conversations.create({ metadata: { title: "Groceries" } });
    const first = await client.responses.create({ model: "latchkey", input: "One", conversation: conversation.id });
    const second = await client.responses.create({ model: "latchkey", input: "Two", previous_response_id: first.id });
    const items = await all(client.conversations.items.list(conversation.id, { order: "asc", limit: 1 }));
    const newest = await all(client.conversations.items.list(conversation.id));
    return {
      title: (await client.conversations.retrieve(conversation.id)).metadata.title,
      texts: items.map((item) => item.content[0].text),
      reversed: same(items, newest.reverse()),
      outputs: same([items[1], items[3]], [...first.output, ...second.output]),
    };
  },

  async branch() {
    const first = await client.responses.create({ model: "latchkey", input: "One" });
    await client.responses.create({ model: "latchkey", input: "Two", previous_response_id: first.id });
    await client.responses.create({ model: "latchkey", input: "Instead", previous_response_id: first.id });
    const items = await all(client.conversations.items.list(first.conversation.id, { order: "asc" }));
    return { texts: items.map((item) => item.content[0].text) };
  },

  async resume() {
    const received = [];
    const stream = await client.responses.create({ model: "latchkey", input: "Buy milk", stream: true });
    for await (const event of stream) {
      received.push(event);
      if (event.type === "response.mcp_call.completed") break;
    }
    const { id } = received[0].response;
    const resumed = client.responses.retrieve(id, { stream: true, starting_after: received.at(-1).sequence_number });
    await reached("resumed");
    received.push(...(await all(await resumed)));
    const again = await all(await client.responses.retrieve(id, { stream: true }));
    const accumulated = await client.responses.stream({ response_id: id, starting_after: 3 }).finalResponse();
    return {
      ...summary(accumulated),
      numbers: received.every((event, index) => event.sequence_number === index),
      again: same(received, again),
      last: received.at(-1).type,
    };
  },

  async cut() {
    const cutting = clientFor({ ...service, url: service.cutting_url });
    const received = [];
    const failure = await failureOf(
      (async () => {
        const stream = await cutting.responses.create({ model: "latchkey", input: "Hello", stream: true });
        for await (const event of stream) {
          received.push(event);
          if (event.type === "response.output_text.delta") await reached("delta");
        }
      })(),
    );
    await reached("cut");
    const options = { stream: true, starting_after: received.at(-1).sequence_number };
    received.push(...(await all(await client.responses.retrieve(received[0].response.id, options))));
    return {
      failed: failure !== null,
      text: received.at(-1).response.output[0].content[0].text,
      numbers: received.every((event, index) => event.sequence_number === index),
      posts: requests.filter((request) => request.startsWith("POST")).length,
    };
  },

  async retry() {
    class RetryingClient extends OpenAI {
      idempotencyHeader = "Idempotency-Key";
    }
    const retrying = clientFor({ ...service, url: service.cutting_url }, RetryingClient);
    const conversation = await retrying.conversations.create();
    const answer = retrying.responses.create({ model: "latchkey", input: "Hello", conversation: conversation.id });
    answer.catch(() => {});
    await reached("waiting");
    await reached("cut");
    const response = await answer;
    const posts = requests.filter((request) => request === "POST /responses").length;
    const items = await all(client.conversations.items.list(conversation.id));
    return { ...summary(response), posts, messages: items.length };
  },

  async background() {
    const queued = await client.responses.create({ model: "latchkey", input: "Work", background: true });
    await reached("queued");
    let response = queued;
    while (response.status === "in_progress") response = await client.responses.retrieve(queued.id);
    return { at_once: queued.status, ...summary(response) };
  },

  async cancel() {
    const stream = client.responses.stream({ model: "latchkey", input: "Hello" });
    const id = new Promise((resolve) => stream.on("response.created", (event) => resolve(event.response.id)));
    const delta = new Promise((resolve) => stream.on("response.output_text.delta", resolve));
    const last = new Promise((resolve) => stream.on("response.incomplete", resolve));
    await delta;
    const cancelled = await client.responses.cancel(await id);
    const end = await last;
    const shown = await client.responses.retrieve(cancelled.id);
    return { ...summary(shown), at_once: cancelled.status, end: [end.type, end.response.status] };
  },

  async approvals() {
    const stream = client.responses.stream({ model: "latchkey", input: "Buy milk, tea and bread" });
    const seen = [];
    stream.on("response.output_item.done", (event) => seen.push(event.item.type));
    let response = await stream.finalResponse();
    const first = response;
    const rounds = [];
    // Two of the three questions are answered first; the response to them repeats the third.
    for (const answers of [[true, false], [true]]) {
      const requests = response.output.filter((item) => item.type === "mcp_approval_request");
      rounds.push(requests.map((request) => [request.name, JSON.parse(request.arguments).title, request.server_label]));
      const input = answers.map((approve, index) => decisionOn(requests[index], approve));
      const body = { model: "latchkey", previous_response_id: response.id, input };
      const rest = client.responses.stream(body);
      response = await rest.finalResponse();
      const again = await client.responses.create(body);
      rounds.push([types(response), same(response, again), same(response, await client.responses.retrieve(response.id))]);
    }
    const { output } = response;
    const inputs = await client.responses.inputItems.list(response.id);
    const items = await all(client.conversations.items.list(first.conversation.id, { order: "asc" }));
    return {
      first: [first.status, types(first)],
      seen,
      rounds,
      ...summary(response),
      approved: [output[0].arguments, output[0].approval_request_id === inputs.data[0].approval_request_id],
      history: items.map((item) => item.type),
      opposite: await failureOf(
        client.responses.create({ model: "latchkey", input: [{ ...inputs.data[0], approve: false }] }),
      ),
    };
  },

  async approval_resume() {
    const first = await client.responses.create({ model: "latchkey", input: "Buy milk" });
    const received = [];
    const input = [decisionOn(first.output[0], true)];
    const stream = await client.responses.create({ model: "latchkey", input, stream: true });
    for await (const event of stream) {
      received.push(event);
      if (event.type === "response.mcp_call.completed") break;
    }
    const { id } = received[0].response;
    const resumed = client.responses.retrieve(id, { stream: true, starting_after: received.at(-1).sequence_number });
    await reached("resumed");
    received.push(...(await all(await resumed)));
    const accumulated = await client.responses.stream({ response_id: id, starting_after: 3 }).finalResponse();
    return { ...summary(accumulated), numbers: received.every((event, index) => event.sequence_number === index) };
  },

  async failure() {
    const stream = client.responses.stream({ model: "latchkey", input: "Hello" });
    const failed = new Promise((resolve) => stream.on("response.failed", resolve));
    const { response } = await failed;
    const waited = await client.responses.create({ model: "latchkey", input: "Hello" });
    return { codes: [response.error.code, waited.error.code], statuses: [response.status, waited.status], requests };
  },

  async assistants() {
    const models = await all(client.models.list());
    return { models: models.map((model) => model.id), one: (await client.models.retrieve("latchkey")).id };
  },

  async refusals() {
    const stranger = clientFor({ ...service, token: "none" });
    const image = [{ role: "user", content: [{ type: "input_image", image_url: "https://example.org/a.png" }] }];
    const id = "resp_0198f3c0a7b47c1e8d2f3a4b5c6d7e8f";
    const running = await client.responses.create({ model: "latchkey", input: "Hello", background: true });
    await reached("running");
    requests.length = 0;
    return {
      token: await failureOf(stranger.responses.create({ model: "latchkey", input: "Hello" })),
      image: await failureOf(client.responses.create({ model: "latchkey", input: image })),
      unknown: await failureOf(client.responses.retrieve(id)),
      busy: await failureOf(
        client.responses.create({ model: "latchkey", input: "And?", conversation: running.conversation.id }),
      ),
      path: await failureOf(client.chat.completions.create({ model: "latchkey", messages: [] })),
      requests: requests.length,
    };
  },
};

const result = await scenarios[scenario]();
process.stdout.write(`${JSON.stringify({ result })}\n`, () => process.exit(0));
