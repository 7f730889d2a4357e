// A client with the types that `openapi-typescript` makes of the OpenAPI document. Returns what it received.

import createClient from "openapi-fetch";

import type { components, paths } from "./api.js";
import type { Service } from "./service.js";

type Schemas = components["schemas"];

export async function run({ url, user, token }: Service): Promise<object> {
  const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${token}` } });
  const ofUser = { path: { user_id: user } };

  const created: Schemas["Task"] = dataOf(
    await client.POST("/api/{user_id}/tasks", { params: ofUser, body: { title: "Buy milk", due_at: null } }),
  );
  const page: Schemas["TaskPage"] = dataOf(
    await client.GET("/api/{user_id}/tasks", { params: { ...ofUser, query: { status: "pending", limit: 10 } } }),
  );
  const completed = dataOf(
    await client.POST("/api/{user_id}/tasks/{task_id}/complete", { params: { path: { user_id: user, task_id: created.id } } }),
  );
  const answer: Schemas["ChatAnswer"] | Schemas["WaitingAnswer"] = dataOf(
    await client.POST("/api/{user_id}/chat", { params: ofUser, body: { message: "Hello" } }),
  );
  if ("approvals" in answer) throw new Error(`The turn waits for ${answer.approvals.length} decisions.`);
  const stream: ReadableStream<Uint8Array> | null = dataOf(
    await client.POST("/api/{user_id}/chat", {
      params: ofUser,
      headers: { Accept: "text/event-stream" },
      body: { message: "Hello", conversation_id: answer.conversation_id },
      parseAs: "stream",
    }),
  );
  const missing = await client.GET("/api/{user_id}/tasks/{task_id}", {
    params: { path: { user_id: user, task_id: answer.turn_id } },
  });
  const problem: Schemas["Problem"] | undefined = missing.error;

  return {
    created: created.title,
    listed: page.items.map((task) => task.title),
    completed: completed.status,
    answer: answer.response,
    streamed: await textOf(stream),
    problem: [missing.response.status, problem?.code],
  };
}

/** Return the texts of all `message.delta` events, joined. Throws if the last event is not `turn.completed`. */
async function textOf(stream: ReadableStream<Uint8Array> | null): Promise<string> {
  const frames = (await new Response(stream).text()).split("\n\n").filter((frame) => frame.includes("\ndata: "));
  const events = frames.map(parsed);
  const last = events.at(-1);
  if (last?.event !== "turn.completed" || last.data.message_id === "") throw new Error(`The last event is ${last?.event}.`);
  return events.map((event) => (event.event === "message.delta" ? event.data.text : "")).join("");
}

function parsed(frame: string): Schemas["StreamedEvent"] {
  const fields = Object.fromEntries(frame.split("\n").map((line) => line.split(/: (.*)/s, 2)));
  return { ...fields, data: JSON.parse(fields["data"]) };
}

function dataOf<T>({ data, error }: { data?: T; error?: Schemas["Problem"] }): T {
  if (data === undefined) throw new Error(`${error?.code}: ${error?.detail}`);
  return data;
}
